//! Tests of the head's gradients, and of training.

use std::path::PathBuf;

use candle_core::Device;
use embodied_r_grpo::schedule::LrScheduler;
use embodied_r_grpo::settings::Optim;
use embodied_r_policy::Precision;
use embodied_r_random::Rng;
use embodied_r_vision::{Frames, FrozenParts, TowerOptions, VisionProcessor};
use image::{Rgb, RgbImage};

use super::*;
use crate::progress::Lines;

const CLASSES: usize = 2;
/// Of the two coordinates.
const BINS: [usize; 2] = [3, 2];

fn model() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../vision/tests/fixtures/nested")
}

fn processor() -> VisionProcessor {
    VisionProcessor::of_model(&model()).unwrap()
}

fn tower() -> TrainableTower {
    let options = TowerOptions {
        frozen: FrozenParts::default(),
        precision: Precision::F32,
        device: Device::Cpu,
    };
    TrainableTower::load(&model(), processor(), &options).unwrap()
}

/// An image of four tokens, with a square in the colour of its class and bin for each object.
fn example(objects: Vec<DetectedObject>) -> DetectionExample {
    let image = RgbImage::from_fn(56, 56, |x, y| {
        let token = (y / 28 * 2 + x / 28) as usize;
        let here = objects.iter().find(|object| object.token == token);
        here.map_or(Rgb([0; 3]), |it| {
            Rgb([250, 200 * it.class as u8, 80 * it.bins[0] as u8 + 40 * it.bins[1] as u8])
        })
    });
    DetectionExample { pixels: processor().pixels(&Frames::Image(image)).unwrap(), objects }
}

fn object(token: usize, class: usize, bins: [usize; 2]) -> DetectedObject {
    DetectedObject { token, class, bins: bins.to_vec() }
}

fn settings(steps: u64) -> DetectionSettings {
    DetectionSettings {
        classes: CLASSES,
        bins: BINS.to_vec(),
        images_per_step: 2,
        schedule: LrSchedule {
            kind: LrScheduler::Constant,
            peak: 1e-2,
            warmup_steps: 0,
            total_steps: steps,
        },
        optimizer: OptimizerSettings {
            optim: Optim::Adamw,
            adam_beta1: 0.9,
            adam_beta2: 0.98,
            adam_epsilon: 1e-8,
            weight_decay: 0.0,
            max_grad_norm: 1.0,
        },
    }
}

fn trained(
    tower: &TrainableTower,
    examples: impl IntoIterator<Item = DetectionExample>,
    steps: u64,
) -> Result<DetectionReport> {
    let lines = Lines::default();
    let progress = StepProgress { lines: &lines, phase: "detecting objects", save: &|| Ok(()) };
    train(tower, examples, &settings(steps), &progress)
}

fn random(rng: &mut Rng, dims: &[usize]) -> Tensor {
    let values = (0..dims.iter().product::<usize>()).map(|_| rng.between(-1.0, 1.0) as f32);
    Tensor::from_vec(values.collect::<Vec<_>>(), dims, &Device::Cpu).unwrap()
}

#[test]
fn gradients_of_the_head_agree_with_finite_differences() {
    let (hidden, outputs, mut rng) = (5, CLASSES * 6, Rng::new(&[1]));
    let batch = [
        example(vec![object(0, 1, [2, 0]), object(3, 0, [0, 1])]),
        example(vec![object(2, 1, [1, 1])]),
    ];
    let embeddings = [random(&mut rng, &[4, hidden]), random(&mut rng, &[4, hidden])];
    let head = Head {
        weight: random(&mut rng, &[outputs, hidden]),
        bias: random(&mut rng, &[outputs]),
        classes: CLASSES,
        bins: BINS.to_vec(),
    };
    let pass = head.pass(&embeddings, &batch).unwrap();
    let loss = |weight: &Tensor, bias: &Tensor, embeddings: &[Tensor]| {
        let (weight, bias) = (weight.clone(), bias.clone());
        Head { weight, bias, classes: CLASSES, bins: BINS.to_vec() }
            .pass(embeddings, &batch)
            .unwrap()
            .loss
    };
    // The rounding of f32 logits, 1e-7, is divided by the step; the second-order error is the step's square.
    let step = 1e-2;
    let mut check = |at: &Tensor, gradient: &Tensor, loss: &dyn Fn(&Tensor) -> f64| {
        for _ in 0..4 {
            let direction = random(&mut rng, at.dims());
            let moved = |by: f64| loss(&(at + (&direction * by).unwrap()).unwrap());
            let slope = (moved(step) - moved(-step)) / (2.0 * step);
            let product = (gradient * &direction).unwrap().sum_all().unwrap();
            let expected = f64::from(product.to_scalar::<f32>().unwrap());
            assert!(
                (slope - expected).abs() < 1e-3 * expected.abs().max(0.1),
                "{slope} {expected}"
            );
        }
    };
    check(&head.weight, &pass.d_weight, &|weight| loss(weight, &head.bias, &embeddings));
    check(&head.bias, &pass.d_bias, &|bias| loss(&head.weight, bias, &embeddings));
    let [first, second] = &embeddings;
    check(first, &pass.d_embeddings[0], &|first| {
        loss(&head.weight, &head.bias, &[first.clone(), second.clone()])
    });
    check(second, &pass.d_embeddings[1], &|second| {
        loss(&head.weight, &head.bias, &[first.clone(), second.clone()])
    });
}

#[test]
fn objects_of_two_images_are_learned_and_the_tower_changes() {
    let tower = tower();
    let before: Vec<Vec<f32>> = tower
        .parameters()
        .map(|(_, tensor)| tensor.flatten_all().unwrap().to_vec1().unwrap())
        .collect();
    let one = example(vec![object(1, 0, [2, 1])]);
    let other = example(vec![object(1, 1, [0, 0]), object(2, 0, [1, 1])]);
    let examples = std::iter::repeat([one, other]).flatten();
    let report = trained(&tower, examples, 150).unwrap();
    assert_eq!(report.steps, 150);
    // At first every bin is as likely: 4 tokens × 2 classes × ln 4 and 1.5 objects × ln 2 are 12.1.
    assert!(report.loss < 1.0 && report.found > 0.8, "{report:?}");
    for ((name, tensor), before) in tower.parameters().zip(before) {
        let now: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
        assert_ne!(now, before, "{name}");
    }
}

#[test]
fn a_run_ends_with_its_examples() {
    assert_eq!(trained(&tower(), vec![example(vec![]); 3], 9).unwrap().steps, 2);
}

#[test]
fn an_object_outside_of_the_image_or_the_classes_is_an_error() {
    let tower = tower();
    let few = DetectedObject { token: 0, class: 0, bins: vec![0] };
    let outside = [
        object(4, 0, [0, 0]),
        object(0, CLASSES, [0, 0]),
        object(0, 0, [3, 0]),
        object(0, 0, [0, 2]),
        few,
    ];
    for wrong in outside {
        let examples = [DetectionExample { objects: vec![wrong], ..example(vec![]) }];
        let error = trained(&tower, examples, 1).unwrap_err();
        assert!(error.to_string().contains("2 classes, bins [3, 2] and 4 tokens"), "{error}");
    }
}

//! Gradients of `transformers`.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{LAYOUTS, folder, norm, pass, pixels, tower, waves};

#[derive(Deserialize)]
struct Reference {
    loss: f64,
    waves: Vec<f64>,
    gradients: BTreeMap<String, Gradient>,
}

#[derive(Deserialize)]
struct Gradient {
    norm: f64,
    waves: Vec<f64>,
    some: Vec<(usize, f64)>,
}

#[test]
fn loss_and_every_gradient_equal_those_of_transformers() {
    for layout in LAYOUTS {
        let text = std::fs::read(folder(layout).join("tower_gradients.json")).unwrap();
        let reference: Reference = serde_json::from_slice(&text).unwrap();
        let tower = tower(layout);
        let images = pixels(&tower);
        let (loss, found) = pass(&tower, &images.iter().collect::<Vec<_>>(), usize::MAX);
        assert!((loss - reference.loss).abs() < 1e-5 * reference.loss.abs(), "{layout}: {loss}");
        assert!(found.keys().eq(reference.gradients.keys()), "{layout}: {:?}", found.keys());
        for (name, expected) in &reference.gradients {
            let found: Vec<f64> = found[name].iter().map(|x| f64::from(*x)).collect();
            let scale = expected.norm;
            let near = |found: f64, expected: f64| {
                let error = (found - expected).abs() / scale;
                assert!(error < 2e-5, "{layout}, {name}: {found}, not {expected}: {error:e}");
            };
            near(norm(found.iter().copied()), expected.norm);
            for (step, expected) in reference.waves.iter().zip(&expected.waves) {
                near(found.iter().zip(waves(*step)).map(|(x, wave)| x * wave).sum(), *expected);
            }
            for (index, expected) in &expected.some {
                near(found[*index], *expected);
            }
        }
    }
}

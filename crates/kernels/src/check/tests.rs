use proptest::prelude::*;

use candle_core::{Device, Tensor};

use super::case::{Output, compared};
use super::*;
use crate::device::{ThreadOrder, set_thread_order};

fn assert_agreement(cases: &[Case]) {
    for case in cases {
        for activations in [ActivationDtype::F32, ActivationDtype::Bf16] {
            let of = format!("{} {} {activations:?}", case.op, case.shape);
            let compared =
                case.compare(&Device::Cpu, activations).unwrap_or_else(|e| panic!("{of}: {e}"));
            for compared in compared {
                assert!(compared.within_tolerance(), "{of}: {compared:?}");
            }
        }
    }
}

#[test]
fn every_operation_agrees_with_the_cpu() {
    assert_agreement(&cases());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]

    #[test]
    fn row_operations_agree_at_any_shape(rows in 0usize..80, width in 1usize..400) {
        let mut cases = Vec::new();
        rows::at(&mut cases, rows, width);
        assert_agreement(&cases);
    }

    #[test]
    fn gemms_agree_at_any_shape(rows in 0usize..90, inputs in 1usize..100, outputs in 1usize..100) {
        let mut cases = Vec::new();
        gemms::at(&mut cases, rows, inputs, outputs);
        assert_agreement(&cases);
    }
}

#[test]
fn no_result_depends_on_the_order_of_threads_and_blocks() {
    for case in cases() {
        for activations in [ActivationDtype::F32, ActivationDtype::Bf16] {
            let bits = [ThreadOrder::Ascending, ThreadOrder::Descending, ThreadOrder::Alternating]
                .map(|order| {
                    set_thread_order(order);
                    case.bits(&Device::Cpu, activations).unwrap()
                });
            let same = bits[0] == bits[1] && bits[0] == bits[2];
            assert!(same, "{} {} {activations:?}", case.op, case.shape);
        }
    }
}

#[test]
fn wrong_and_unwritten_elements_are_detected() {
    let output = |values: &[f32]| Output::near("y", Tensor::new(values, &Device::Cpu).unwrap());
    let of = |found: &[f32]| compared("test", &output(&[1.0, -2.0]), &output(found)).unwrap();
    assert!(of(&[1.0, -2.0]).within_tolerance());
    assert!(!of(&[1.0, -2.001]).within_tolerance());
    assert!(!of(&[f32::NAN, -2.0]).within_tolerance());
    assert!(compared("test", &output(&[1.0]), &output(&[1.0, 2.0])).is_err());
}

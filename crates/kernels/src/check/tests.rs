use proptest::prelude::*;

use super::*;
use crate::device::{Order, set_order};

fn hold(cases: &[Case]) {
    for case in cases {
        for held in [Held::F32, Held::Bf16] {
            let of = format!("{} {} {held:?}", case.op, case.shape);
            let compared = case.compare(&Device::Cpu, held).unwrap_or_else(|e| panic!("{of}: {e}"));
            for compared in compared {
                assert!(compared.holds(), "{of}: {compared:?}");
            }
        }
    }
}

#[test]
fn every_operation_gives_on_the_device_what_it_gives_on_the_cpu() {
    hold(&cases());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]

    #[test]
    fn operations_on_rows_hold_at_any_shape(rows in 0usize..80, width in 1usize..400) {
        let mut cases = Vec::new();
        rows::at(&mut cases, rows, width);
        hold(&cases);
    }

    #[test]
    fn products_hold_at_any_shape(rows in 0usize..90, inputs in 1usize..100, outputs in 1usize..100) {
        let mut cases = Vec::new();
        products::at(&mut cases, rows, inputs, outputs);
        hold(&cases);
    }
}

#[test]
fn no_result_depends_on_the_order_of_threads_and_blocks() {
    for case in cases() {
        for held in [Held::F32, Held::Bf16] {
            let bits = [Order::Ascending, Order::Descending, Order::Alternating].map(|order| {
                set_order(order);
                case.bits(&Device::Cpu, held).unwrap()
            });
            let same = bits[0] == bits[1] && bits[0] == bits[2];
            assert!(same, "{} {} {held:?}", case.op, case.shape);
        }
    }
}

#[test]
fn a_wrong_number_and_one_that_was_never_written_are_told() {
    let output = |numbers: &[f32]| Output::near("y", Tensor::new(numbers, &Device::Cpu).unwrap());
    let of = |found: &[f32]| compared("test", &output(&[1.0, -2.0]), &output(found)).unwrap();
    assert!(of(&[1.0, -2.0]).holds());
    assert!(!of(&[1.0, -2.001]).holds());
    assert!(!of(&[f32::NAN, -2.0]).holds());
    assert!(compared("test", &output(&[1.0]), &output(&[1.0, 2.0])).is_err());
}

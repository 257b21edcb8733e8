use super::*;

#[test]
fn an_update_is_seen_by_every_tensor_that_shares_the_storage() {
    let a = tensor(vec![1.0, 2.0], 2).unwrap();
    let b = a.clone();
    update(&a, "test", |v| v[1] = 5.0).unwrap();
    assert_eq!(b.to_vec1::<f32>().unwrap(), [1.0, 5.0]);
}

#[test]
fn lerp_weights_both_tensors() {
    let (to, from) = (tensor(vec![1.0, 2.0], 2).unwrap(), tensor(vec![3.0, -2.0], 2).unwrap());
    lerp(&to, &from, 0.25).unwrap();
    assert_eq!(to.to_vec1::<f32>().unwrap(), [1.5, 1.0]);
    assert!(lerp(&to, &tensor(vec![1.0], 1).unwrap(), 0.25).is_err());
}

#[test]
fn rows_are_a_copy_without_the_rest_of_the_storage() {
    let matrix = tensor((0..6).map(|i| i as f32).collect(), (3, 2)).unwrap();
    let part = rows(&matrix, 1..3).unwrap();
    update(&matrix, "test", |values| values.fill(0.0)).unwrap();
    assert_eq!(part.to_vec2::<f32>().unwrap(), [[2.0, 3.0], [4.0, 5.0]]);
    assert_eq!(part.layout().start_offset(), 0);
    assert!(rows(&matrix, 2..4).is_err());
}

#[test]
fn rows_are_copied_within_bounds() {
    let to = tensor(vec![0.0; 6], (3, 2)).unwrap();
    let from = tensor(vec![1.0, 2.0, 3.0, 4.0], (2, 2)).unwrap();
    copy_rows(&to, 1, &from, 1..2).unwrap();
    assert_eq!(to.to_vec2::<f32>().unwrap(), [[0.0, 0.0], [3.0, 4.0], [0.0, 0.0]]);
    assert!(copy_rows(&to, 2, &from, 0..2).is_err());
    assert!(copy_rows(&to, 0, &from, 1..3).is_err());
}

#[test]
fn a_transposed_tensor_is_rejected() {
    let a = tensor(vec![0.0; 6], (2, 3)).unwrap().t().unwrap();
    assert!(matches!(floats(&a, "test"), Err(Error::Storage { op: "test" })));
}

#[test]
fn the_pointer_of_a_view_is_that_of_its_first_element() {
    let whole = tensor(vec![1.0, 2.0, 3.0], 3).unwrap();
    let part = whole.narrow(0, 1, 2).unwrap();
    assert_eq!(data_ptr(&part).unwrap(), data_ptr(&whole).unwrap() + 4);
    let transposed = tensor(vec![0.0; 6], (2, 3)).unwrap().t().unwrap();
    assert!(matches!(data_ptr(&transposed), Err(Error::Storage { .. })));
    assert_eq!(StreamEvent::record(&Device::Cpu).unwrap().handle(), 0);
}

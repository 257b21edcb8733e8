use serde_json::json;

use super::*;

/// The records of the whole lines, and the numbers of the others.
fn parsed(text: &[u8]) -> (Vec<(Range<u64>, u32)>, Vec<usize>) {
    let (mut valid, mut broken) = (Vec::new(), Vec::new());
    for line in lines(text) {
        match line.parse() {
            Ok(record) => valid.push((line.bytes, record)),
            Err(_) => broken.push(line.number),
        }
    }
    (valid, broken)
}

#[test]
fn a_truncated_line_is_broken_and_the_next_one_is_valid() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/a.jsonl");
    Journal::share(&path).unwrap().0.append(&17).unwrap();
    std::fs::write(&path, "17\n{\"cut").unwrap();
    let (mut journal, text) = Journal::share(&path).unwrap();
    assert_eq!(parsed(&text), (vec![(0..3, 17)], vec![2]));
    assert_eq!(journal.append(&4).unwrap(), 9..11);
    let (_, text) = Journal::share(&path).unwrap();
    assert_eq!(parsed(&text).0, [(0..3, 17), (9..11, 4)]);
}

#[test]
fn an_unfinished_line_is_ignored() {
    assert_eq!(parsed(b"1\n2"), (vec![(0..2, 1)], vec![]));
}

#[test]
fn a_torn_line_is_cut_or_ended_as_asked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.jsonl");
    let kept = |text: &str, torn| {
        std::fs::write(&path, text).unwrap();
        let (mut journal, kept) = Journal::lock(&path, torn).unwrap().unwrap();
        assert_eq!(journal.length(), kept.len() as u64);
        journal.append(&json!({})).unwrap();
        drop(journal);
        assert_eq!(std::fs::read(&path).unwrap(), [&kept, b"{}\n".as_slice()].concat());
        String::from_utf8(kept).unwrap()
    };
    let (whole, torn) = ("{\"a\":1}\n{\"b\":2}", "{\"a\":1}\n{\"b\":");
    assert_eq!(kept(whole, TornLine::Cut), "{\"a\":1}\n");
    assert_eq!(kept(whole, TornLine::CutUnlessWhole), "{\"a\":1}\n{\"b\":2}\n");
    assert_eq!(kept(torn, TornLine::CutUnlessWhole), "{\"a\":1}\n");
    assert_eq!(kept(torn, TornLine::End), "{\"a\":1}\n{\"b\":\n");
    assert_eq!(kept("{\"a\":1}\n", TornLine::Cut), "{\"a\":1}\n");
}

#[test]
fn a_rewritten_journal_is_open_to_the_next_process() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.jsonl");
    let open = || Journal::lock(&path, TornLine::Cut).unwrap();
    let (mut journal, _) = open().unwrap();
    assert!(open().is_none());
    journal.append(&2).unwrap();
    journal.rewrite([1, 2]).unwrap();
    assert_eq!(open().unwrap().1, b"1\n2\n");
}

#[test]
fn lines_after_a_checkpoint_are_cut() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.jsonl");
    let mut journal = Journal::cut_to(&path, 9).unwrap();
    assert_eq!((journal.append(&1).unwrap(), journal.append(&2).unwrap()), (0..2, 2..4));
    drop(journal);
    assert_eq!(Journal::cut_to(&path, 2).unwrap().append(&3).unwrap(), 2..4);
    assert_eq!(std::fs::read(&path).unwrap(), b"1\n3\n");
}

#[test]
fn changes_name_settings_on_either_side() {
    let of = |value: Value| value.as_object().unwrap().clone();
    let before = of(json!({"a": 1, "b": 2, "c": "x".repeat(100)}));
    let now = of(json!({"c": "y", "d": null, "a": 1}));
    assert_eq!(
        changes(&before, &now),
        "`c` differs, `d` was unset and is null, `b` was 2 and is unset"
    );
    assert_eq!(changes(&now, &now), "");
}

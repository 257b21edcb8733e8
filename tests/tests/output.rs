//! What any command does when nobody reads its output any more (`| head`).

use std::process::{Command, Stdio};

use embodied_r_tests::binary;

#[test]
fn a_command_whose_reader_has_left_ends_quietly() {
    let mut command = Command::new(binary());
    command.arg("doctor").stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    assert!(output.status.success(), "{}", output.status);
}

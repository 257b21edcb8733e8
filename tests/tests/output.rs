//! Commands whose output pipe is closed early (`| head`).

use std::process::{Command, Stdio};

use embodied_r_tests::binary;

#[test]
fn a_closed_output_pipe_is_no_error() {
    let mut command = Command::new(binary());
    command.arg("doctor").stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    assert!(output.status.success(), "{}", output.status);
}

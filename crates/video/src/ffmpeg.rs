//! FFmpeg's names of files and its error messages.

use std::ffi::OsString;
use std::path::Path;

/// Maximum length of a reported FFmpeg error, in characters.
const MAX_ERROR_CHARS: usize = 200;

/// The file name for FFmpeg, which cannot be parsed as an option, a protocol or a pattern.
pub(crate) fn input_name(path: &Path) -> OsString {
    let mut name = OsString::from("file:");
    name.push(path);
    name
}

/// The first non-empty line, without the prefix of FFmpeg's component.
pub(crate) fn first_error<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    let mut lines = lines.map(str::trim).filter(|line| !line.is_empty());
    let Some(line) = lines.next() else { return "FFmpeg reports no reason".to_owned() };
    if let Some((format, _)) = line.split_once("Format not on whitelist") {
        let name = format.trim_start_matches('[').split(" @").next().unwrap_or_default();
        return rejected_format(name);
    }
    let message = match line.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
        Some((_, message)) => message,
        None => line.rsplit_once(": ").map_or(line, |(_, message)| message),
    };
    message.trim_end_matches('.').chars().take(MAX_ERROR_CHARS).collect()
}

/// Why a file of the format `name` is rejected.
fn rejected_format(name: &str) -> String {
    let is_image = name == "image2" || name.ends_with("_pipe");
    let is_playlist =
        matches!(name, "hls" | "dash" | "concat" | "concatf" | "sdp" | "rtsp" | "imf");
    match name {
        "tty" => "it is text".to_owned(),
        _ if is_image => "it is an image".to_owned(),
        _ if is_playlist => format!("it is a playlist (`{name}`), whose files are not opened"),
        _ => format!("the format `{name}` is not supported"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_reported_without_its_prefix() {
        let message = |line: &str| first_error([line].into_iter());
        assert_eq!(message("[mov,mp4 @ 0x55ea] moov atom not found"), "moov atom not found");
        assert_eq!(message("file:a: b.txt: Invalid data found"), "Invalid data found");
        assert_eq!(first_error(["", " "].into_iter()), "FFmpeg reports no reason");
        let rejected =
            |name: &str| message(&format!("[{name} @ 0x1] Format not on whitelist 'mov'"));
        assert_eq!(rejected("png_pipe"), "it is an image");
        assert_eq!(rejected("hls"), "it is a playlist (`hls`), whose files are not opened");
    }

    #[test]
    fn a_name_is_never_an_option_or_a_protocol() {
        assert_eq!(input_name(Path::new("-y.mp4")), "file:-y.mp4");
        assert_eq!(input_name(Path::new("http://a.mp4")), "file:http://a.mp4");
    }
}

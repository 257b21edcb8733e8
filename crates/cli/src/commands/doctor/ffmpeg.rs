//! FFmpeg and its codecs.

use embodied_r_video::{Error, ffmpeg_output};

use super::check::Check;

const AREA: &str = "video";
const INSTALL: &str = "install FFmpeg (Debian, Ubuntu: `apt-get install ffmpeg`)";

/// Decoders: the benchmarks' videos are H.264; the others are common in user videos.
const DECODERS: &[(&str, Need)] = &[
    ("h264", Need::Required),
    ("hevc", Need::Useful("H.265 videos cannot be read; install a full build of FFmpeg")),
    ("vp9", Need::Useful("VP9 videos cannot be read; install a full build of FFmpeg")),
];
const ENCODERS: &[(&str, Need)] = &[
    ("rawvideo", Need::Required),
    (
        "libx264",
        Need::Useful("`sim` and `quickstart` encode H.264; install a full build of FFmpeg"),
    ),
];

#[derive(Clone, Copy)]
enum Need {
    Required,
    /// Optional; the text says what fails without it, and the fix.
    Useful(&'static str),
}

/// Checks `ffmpeg` and `ffprobe` on the `PATH`.
pub(super) fn checks() -> Vec<Check> {
    let ffmpeg = version_check("ffmpeg");
    let has_ffmpeg = ffmpeg.advice.is_none();
    let mut checks = vec![ffmpeg, version_check("ffprobe")];
    if has_ffmpeg {
        let decoders = output("ffmpeg", &["-hide_banner", "-decoders"]).unwrap_or_default();
        checks.extend(codec_checks("decoder", &decoders, DECODERS));
        let encoders = output("ffmpeg", &["-hide_banner", "-encoders"]).unwrap_or_default();
        checks.extend(codec_checks("encoder", &encoders, ENCODERS));
    }
    checks
}

fn version_check(program: &'static str) -> Check {
    match output(program, &["-version"]) {
        Ok(text) => Check::ok(AREA, program, version(&text).unwrap_or("unknown version")),
        Err(found) => Check::missing(AREA, program, found, INSTALL),
    }
}

/// Standard output of a program, or why it failed.
fn output(program: &'static str, args: &[&str]) -> Result<String, String> {
    ffmpeg_output(program, args).map_err(|error| match error {
        Error::FfmpegMissing { .. } => "not found on `PATH`".to_owned(),
        other => other.to_string(),
    })
}

/// The third word of `ffmpeg version 5.1.6-0+deb12u1 Copyright …`.
fn version(text: &str) -> Option<&str> {
    text.lines().next()?.split_whitespace().nth(2)
}

/// Whether FFmpeg's list of codecs, lines such as ` V....D h264   H.264 / AVC …`, has `codec`.
fn lists(list: &str, codec: &str) -> bool {
    list.lines().any(|line| line.split_whitespace().nth(1) == Some(codec))
}

fn codec_checks(kind: &str, list: &str, wanted: &[(&str, Need)]) -> Vec<Check> {
    let check = |&(codec, need): &(&str, Need)| {
        let name = format!("{kind} {codec}");
        match need {
            _ if lists(list, codec) => Check::ok(AREA, &name, "available"),
            Need::Required => Check::missing(AREA, &name, "not in this FFmpeg build", INSTALL),
            Need::Useful(advice) => Check::warning(AREA, &name, "not in this FFmpeg build", advice),
        }
    };
    wanted.iter().map(check).collect()
}

#[cfg(test)]
mod tests {
    use super::super::check::State;
    use super::*;

    const LIST: &str = "Encoders:\n V..... = Video\n ------\n V..... rawvideo   raw video\n";

    #[test]
    fn the_version_is_the_third_word() {
        assert_eq!(
            version("ffmpeg version 5.1.6-0+deb12u1 Copyright\nx y z"),
            Some("5.1.6-0+deb12u1")
        );
        assert_eq!(version(""), None);
    }

    #[test]
    fn a_codec_is_matched_by_its_name_not_its_description() {
        assert!(lists(LIST, "rawvideo"));
        assert!(!lists(LIST, "raw"));
        assert!(!lists(LIST, "video"));
    }

    #[test]
    fn a_missing_optional_encoder_is_a_warning() {
        let states: Vec<_> =
            codec_checks("encoder", LIST, ENCODERS).iter().map(|check| check.state).collect();
        assert_eq!(states, [State::Ok, State::Warning]);
    }

    #[test]
    fn a_program_that_is_not_installed_is_missing() {
        let check = version_check("embodied-r-no-such-program");
        assert_eq!(check.state, State::Missing);
        assert_eq!(check.found, "not found on `PATH`");
    }
}

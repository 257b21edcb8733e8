//! Corrupt and hostile files: each is rejected by name, and opens no other file or connection.

use std::io::ErrorKind;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use embodied_r_keyframes::{Error, KeyFrameOptions, select};
use embodied_r_video::{self as video, TimeLimit};
use embodied_r_vision::image_file;

use super::{ffmpeg, patterns};

const X264: &str = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p -g 12";

/// A valid clip with faststart.
fn clip(folder: &Path) -> Vec<u8> {
    let path = patterns(folder, &format!("{X264} -movflags +faststart"), "whole.mp4");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    bytes
}

/// `bytes` with `patch` written `after` bytes behind the first `name`.
fn patched(bytes: &[u8], name: &[u8; 4], after: usize, patch: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let at = bytes.windows(4).position(|four| four == name).unwrap() + 4 + after;
    bytes[at..at + patch.len()].copy_from_slice(patch);
    bytes
}

/// Pseudorandom bytes.
fn garbage(count: usize) -> Vec<u8> {
    let mut state = 1u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(count).collect()
}

/// A PNG with a header of this size and no data.
fn png_of(width: u32, height: u32) -> Vec<u8> {
    let mut head = b"IHDR".to_vec();
    head.extend([width.to_be_bytes(), height.to_be_bytes()].concat());
    head.extend([8, 0, 0, 0, 0]);
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\x0d".to_vec();
    png.extend(&head);
    png.extend(crc(&head).to_be_bytes());
    png.extend(b"\0\0\0\0IDAT\x35\xaf\x06\x1e\0\0\0\0IEND\xae\x42\x60\x82");
    png
}

/// PNG's checksum.
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |sum, byte| {
        (0..8)
            .fold(sum ^ u32::from(*byte), |s, _| (s >> 1) ^ (0xedb8_8320 & (s & 1).wrapping_neg()))
    })
}

/// Files that are not videos, truncated, or inconsistent. Playlists point to `address`.
fn hostile(folder: &Path, address: &str) -> Vec<(&'static str, Vec<u8>)> {
    let whole = clip(folder);
    let index = whole.windows(4).position(|four| four == b"mdat").unwrap() - 4;
    let patch = |name, after, bytes: &[u8]| patched(&whole, name, after, bytes);
    let text = |text: &str| text.replace("ADDRESS", address).into_bytes();
    let made =
        |arguments: &str, name: &str| std::fs::read(ffmpeg(folder, arguments, name)).unwrap();
    let half = |bytes: Vec<u8>| bytes[..bytes.len() / 2].to_vec();
    let avi = made("-f lavfi -i testsrc2=s=96x64:r=10 -frames:v 30 -c:v mpeg4", "made.avi");
    let mkv = made("-f lavfi -i testsrc2=s=96x64:r=10 -frames:v 30 -c:v libx264", "made.mkv");
    let sound = made("-f lavfi -i sine=r=8000:d=1", "made.wav");
    let huge = 0xffff_fff0u32.to_be_bytes();
    vec![
        ("empty.mp4", Vec::new()),
        ("byte.mp4", vec![0]),
        ("zeros.mp4", vec![0; 1 << 20]),
        ("garbage.mp4", garbage(1 << 18)),
        ("garbage.mkv", [b"\x1a\x45\xdf\xa3".to_vec(), garbage(1 << 16)].concat()),
        ("garbage.avi", [b"RIFF\xff\xff\xff\xffAVI LIST".to_vec(), garbage(1 << 16)].concat()),
        ("garbage.flv", [b"FLV\x01\x05\0\0\0\x09".to_vec(), garbage(1 << 12)].concat()),
        ("garbage.ogv", [b"OggS\0\x02".to_vec(), garbage(1 << 12)].concat()),
        ("garbage.gif", [b"GIF89a".to_vec(), garbage(64)].concat()),
        ("giant.gif", b"GIF89a\xff\xff\xff\xff\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\xff\xff\xff\xff\0\x02\x02L\x01\0;".to_vec()),
        ("giant.y4m", b"YUV4MPEG2 W100000 H100000 F25:1\nFRAME\n".to_vec()),
        ("nothing.y4m", b"YUV4MPEG2 W0 H0 F25:1\nFRAME\n".to_vec()),
        ("text.mp4", b"this is no video\n".to_vec()),
        ("page.mp4", b"<!DOCTYPE html><html><body>404</body></html>".to_vec()),
        ("program.mp4", [b"\x7fELF\x02\x01\x01\0".to_vec(), garbage(4096)].concat()),
        ("archive.mp4", [b"PK\x03\x04\x14\0\0\0\x08\0".to_vec(), garbage(4096)].concat()),
        ("archive.gz.mp4", [b"\x1f\x8b\x08\0\0\0\0\0\0\x03".to_vec(), garbage(4096)].concat()),
        ("playlist.mp4", text("#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://ADDRESS/a.ts\n#EXT-X-ENDLIST\n")),
        ("local.m3u8", text("#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n")),
        ("key.m3u8", text("#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI=\"http://ADDRESS/k\"\n#EXTINF:9,\nmade.avi\n")),
        ("list.mp4", text("ffconcat version 1.0\nfile http://ADDRESS/a.mp4\n")),
        ("list.ffconcat", text("ffconcat version 1.0\nfile made.avi\n")),
        ("manifest.mpd", text("<?xml version=\"1.0\"?><MPD xmlns=\"urn:mpeg:dash:schema:mpd:2011\" profiles=\"urn:mpeg:dash:profile:isoff-live:2011\" type=\"static\"><Period><AdaptationSet contentType=\"video\"><Representation id=\"1\" bandwidth=\"1\"><BaseURL>http://ADDRESS/</BaseURL></Representation></AdaptationSet></Period></MPD>")),
        ("session.sdp", text("v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n")),
        ("drawing.svg", text("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"9\" height=\"9\"><image href=\"http://ADDRESS/a.png\"/></svg>")),
        ("words.srt", b"1\n00:00:00,000 --> 00:00:02,000\nhello\n".to_vec()),
        ("words.ass", b"[Script Info]\nScriptType: v4.00+\n\n[Events]\nDialogue: 0,0:00:00.00,0:00:02.00,Default,,0,0,0,,hi\n".to_vec()),
        ("image.mp4", png_of(64, 64)),
        ("bomb.mp4", png_of(60_000, 60_000)),
        ("sound.mp4", sound),
        ("half.mp4", half(whole.clone())),
        ("half.avi.mp4", avi[..200].to_vec()),
        ("half.mkv", mkv[..300].to_vec()),
        ("head.mp4", whole[..40].to_vec()),
        ("index.mp4", whole[..index].to_vec()),
        ("no_index.mp4", [&whole[..32], &whole[index..]].concat()),
        ("count.mp4", patch(b"stsz", 8, &huge)),
        ("sizes.mp4", patch(b"stsz", 12, &huge)),
        ("offsets.mp4", patch(b"stco", 8, &huge)),
        ("giant.mp4", patched(&patch(b"avc1", 24, &[0xff; 4]), b"avcC", 1, &[0xff; 40])),
        ("codec.mp4", patched(&whole, b"stsd", 12, b"zzzz")),
        ("wide.mp4", [b"\0\0\0\x01moov\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(), whole.clone()].concat()),
        ("endless_box.mp4", [b"\0\0\0\0moov".to_vec(), garbage(4096)].concat()),
        ("stream.ts", [0x47; 188 * 50].to_vec()),
        ("stream.h264", [b"\0\0\0\x01\x67\xff\xff\xff\0\0\0\x01\x65".to_vec(), garbage(4096)].concat()),
    ]
}

#[test]
fn hostile_files_are_rejected_by_name_and_open_no_connection() {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let files = hostile(folder.path(), &listener.local_addr().unwrap().to_string());
    assert!(files.len() >= 40);
    let mut passed = Vec::new();
    for (name, bytes) in files {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        match select(&path, &KeyFrameOptions::default()) {
            Err(error) => assert!(error.to_string().contains(name), "{name}: {error}"),
            Ok(selection) => passed.push((name, selection.frames)),
        }
    }
    assert_eq!(passed, [], "files accepted as videos");
    let caller = listener.accept().map(|(_, address)| address);
    assert_eq!(caller.unwrap_err().kind(), ErrorKind::WouldBlock, "no connection was opened");
}

#[test]
fn paths_that_are_not_regular_files_are_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::create_dir(at("folder.mp4")).unwrap();
    let mut names = vec![at("folder.mp4"), at("absent.mp4"), at("%03d.png"), at("-i.mp4")];
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("/dev/zero", at("endless.mp4")).unwrap();
        std::os::unix::fs::symlink(at("loop.mp4"), at("loop.mp4")).unwrap();
        names.extend([at("endless.mp4"), at("loop.mp4")]);
    }
    for path in names {
        let error = select(&path, &KeyFrameOptions::default()).unwrap_err().to_string();
        assert!(error.contains(&*path.file_name().unwrap().to_string_lossy()), "{error}");
    }
}

#[test]
fn playlists_and_images_are_named_as_such() {
    let folder = tempfile::tempdir().unwrap();
    let rejection = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        video::probe(&path).unwrap_err().to_string()
    };
    let list = rejection("a.mp4", b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nb.ts\n");
    assert!(list.contains("it is a playlist (`hls`)"), "{list}");
    let image = rejection("b.mp4", &png_of(60, 60));
    assert!(image.contains("it is an image"), "{image}");
    let script = rejection("c.mp4", b"ffconcat version 1.0\nfile b.ts\n");
    assert!(script.contains("it is a playlist (`concat`)"), "{script}");
}

#[test]
fn decoding_stops_at_its_time_limit() {
    let folder = tempfile::tempdir().unwrap();
    let long = "-f lavfi -i testsrc2=s=640x480:r=30 -frames:v 900 -c:v mpeg4";
    let path = ffmpeg(folder.path(), long, "long.avi");
    let time_limit = TimeLimit::At(Duration::from_millis(1));
    let options = KeyFrameOptions { time_limit, ..KeyFrameOptions::default() };
    let error = select(&path, &options).unwrap_err();
    assert!(matches!(error, Error::Video(video::Error::DecodeTimeout { .. })), "{error}");
    assert!(error.to_string().contains("long.avi"), "{error}");
}

#[test]
fn hostile_images_are_rejected_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| -> PathBuf { folder.path().join(name) };
    let jpeg = ffmpeg(folder.path(), "-f lavfi -i testsrc2=s=96x64 -frames:v 1", "whole.jpg");
    let jpeg = std::fs::read(jpeg).unwrap();
    let size = jpeg.windows(2).position(|two| two == [0xff, 0xc0]).unwrap() + 5;
    let mut giant = jpeg.clone();
    giant[size..size + 4].fill(0xff);
    let images = [
        ("empty.png", Vec::new()),
        ("text.png", b"not an image".to_vec()),
        ("garbage.jpg", [b"\xff\xd8\xff\xe0".to_vec(), garbage(999)].concat()),
        ("bomb.png", png_of(60_000, 60_000)),
        ("line.png", png_of(u32::MAX >> 1, 1)),
        ("nothing.png", png_of(0, 0)),
        ("hollow.png", png_of(64, 64)),
        ("short.jpg", jpeg[..size - 9].to_vec()),
        ("giant.jpg", giant),
        ("drawing.svg", b"<svg xmlns=\"http://www.w3.org/2000/svg\"/>".to_vec()),
    ];
    for (name, bytes) in images {
        std::fs::write(at(name), bytes).unwrap();
        let error = image_file::read(&at(name)).unwrap_err();
        assert!(error.to_string().contains(name), "{name}: {error}");
    }
    let bomb = image_file::read(&at("bomb.png")).unwrap_err();
    assert!(bomb.to_string().contains("60000 × 60000"), "{bomb}");
    std::fs::create_dir(at("folder.png")).unwrap();
    assert!(image_file::read(&at("folder.png")).is_err());
}

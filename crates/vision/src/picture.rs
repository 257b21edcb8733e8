//! Picture files, read as the reference reads them: upright, in colours, without transparency.

use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Seek};
use std::path::Path;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageError, ImageReader, Limits, RgbImage};

use crate::error::{Error, Result};

/// Pixels beyond which a picture is refused by its header: 8192 × 8192.
pub const MOST_PIXELS: u64 = 1 << 26;

/// The picture in the file at `path`, a PNG or a JPEG whatever its name.
///
/// # Errors
/// [`Error::Io`], [`Error::TooLarge`] for one of more than [`MOST_PIXELS`], before any of it is decoded, and
/// [`Error::Picture`] for what is no such picture.
pub fn read(path: &Path) -> Result<RgbImage> {
    let file = File::open(path).map_err(Error::io("read", path))?;
    if !file.metadata().map_err(Error::io("read", path))?.is_file() {
        return Err(Error::io("read", path)(std::io::Error::other("it is not a regular file")));
    }
    decode(BufReader::new(file), &format!("`{}`", path.display()))
}

/// As [`read`], of a file's bytes.
///
/// # Errors
/// As [`read`].
pub fn from_bytes(bytes: &[u8]) -> Result<RgbImage> {
    decode(Cursor::new(bytes), "that came along")
}

/// Width and height of the picture that [`from_bytes`] gives, by its header.
///
/// # Errors
/// As [`from_bytes`].
pub fn size(bytes: &[u8]) -> Result<(u32, u32)> {
    let (decoder, orientation) = opened(Cursor::new(bytes), "that came along")?;
    let (width, height) = decoder.dimensions();
    use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
    match orientation {
        Rotate90 | Rotate90FlipH | Rotate270 | Rotate270FlipH => Ok((height, width)),
        _ => Ok((width, height)),
    }
}

/// The picture of that name, which stands in its errors.
fn decode(source: impl BufRead + Seek, name: &str) -> Result<RgbImage> {
    let (decoder, orientation) = opened(source, name)?;
    let picture = DynamicImage::from_decoder(decoder);
    let mut picture = picture.map_err(broken(name))?;
    picture.apply_orientation(orientation);
    Ok(picture.into_rgb8())
}

fn broken(name: &str) -> impl Fn(ImageError) -> Error {
    move |source| Error::Picture { name: name.to_owned(), source: Box::new(source) }
}

/// A decoder that has read the header, and how the picture is to be turned.
fn opened<'a>(
    source: impl BufRead + Seek + 'a,
    name: &str,
) -> Result<(impl ImageDecoder + 'a, Orientation)> {
    let broken = broken(name);
    let reader = ImageReader::new(source).with_guessed_format();
    let reader = reader.map_err(|error| broken(ImageError::IoError(error)))?;
    let mut decoder = reader.into_decoder().map_err(&broken)?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > MOST_PIXELS {
        return Err(Error::TooLarge { name: name.to_owned(), width, height });
    }
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(16 * MOST_PIXELS);
    decoder.set_limits(limits).map_err(&broken)?;
    let orientation = decoder.orientation().map_err(&broken)?;
    Ok((decoder, orientation))
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{ImageFormat, Rgba, RgbaImage};

    fn png(picture: &DynamicImage) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        picture.write_to(&mut bytes, ImageFormat::Png).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn what_shows_through_keeps_its_colour() {
        let picture = RgbaImage::from_pixel(3, 2, Rgba([10, 20, 30, 0]));
        let read = from_bytes(&png(&picture.into())).unwrap();
        assert_eq!(read.get_pixel(1, 1).0, [10, 20, 30]);
    }

    #[test]
    fn a_size_is_that_of_the_upright_picture() {
        let bytes = png(&RgbImage::new(5, 3).into());
        assert_eq!(size(&bytes).unwrap(), from_bytes(&bytes).unwrap().dimensions());
        // A JPEG that is to be turned by a quarter: orientation 6 in its Exif block.
        let mut jpeg = Cursor::new(Vec::new());
        RgbImage::new(16, 8).write_to(&mut jpeg, ImageFormat::Jpeg).unwrap();
        let exif = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
        let length = (exif.len() as u16 + 2).to_be_bytes();
        let jpeg = jpeg.into_inner();
        let turned = [&jpeg[..2], &[0xff, 0xe1], &length, exif, &jpeg[2..]].concat();
        assert_eq!(from_bytes(&turned).unwrap().dimensions(), (8, 16));
        assert_eq!(size(&turned).unwrap(), (8, 16));
    }

    #[test]
    fn a_bomb_is_refused_by_its_header() {
        let mut bytes = png(&RgbImage::new(2, 2).into());
        // The header's width and height.
        bytes[16..24].copy_from_slice(&[0, 1, 0, 0, 0, 1, 0, 0]);
        let crc = crc32fast::hash(&bytes[12..29]);
        bytes[29..33].copy_from_slice(&crc.to_be_bytes());
        let refused = from_bytes(&bytes).unwrap_err();
        assert!(matches!(refused, Error::TooLarge { width: 65_536, .. }), "{refused}");
    }

    #[test]
    fn what_is_no_picture_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("note.png");
        std::fs::write(&path, "no picture").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("note.png"));
        let absent = folder.path().join("absent.png");
        assert!(matches!(read(&absent).unwrap_err(), Error::Io { .. }));
    }
}

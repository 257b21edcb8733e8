//! Picture files, read as the reference reads them: upright, in colours, without transparency.

use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Seek};
use std::path::Path;

use image::{DynamicImage, ImageDecoder, ImageError, ImageReader, Limits, RgbImage};

use crate::error::{Error, Result};

/// Pixels beyond which a picture is refused by its header: 16 times those of a 4K frame.
pub const MOST_PIXELS: u64 = 1 << 27;

/// The picture in the file at `path`: PNG or JPEG.
///
/// # Errors
/// [`Error::Io`], or [`Error::Picture`] for what is no such picture or has more than [`MOST_PIXELS`].
pub fn read(path: &Path) -> Result<RgbImage> {
    let file = File::open(path).map_err(Error::io("read", path))?;
    let failed = |source| Error::Picture { path: path.to_owned(), source: Box::new(source) };
    decode(BufReader::new(file)).map_err(failed)
}

/// As [`read`], of a file's bytes.
///
/// # Errors
/// [`Error::PictureBytes`].
pub fn from_bytes(bytes: &[u8]) -> Result<RgbImage> {
    decode(Cursor::new(bytes)).map_err(|source| Error::PictureBytes(Box::new(source)))
}

fn decode(source: impl BufRead + Seek) -> Result<RgbImage, ImageError> {
    let reader = ImageReader::new(source).with_guessed_format()?;
    let mut decoder = reader.into_decoder()?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > MOST_PIXELS {
        let kind = image::error::LimitErrorKind::DimensionError;
        return Err(ImageError::Limits(image::error::LimitError::from_kind(kind)));
    }
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(16 * MOST_PIXELS);
    decoder.set_limits(limits)?;
    let orientation = decoder.orientation()?;
    let mut picture = DynamicImage::from_decoder(decoder)?;
    picture.apply_orientation(orientation);
    Ok(picture.into_rgb8())
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
    fn a_bomb_is_refused_by_its_header() {
        let mut bytes = png(&RgbImage::new(2, 2).into());
        // The header's width and height.
        bytes[16..24].copy_from_slice(&[0, 1, 0, 0, 0, 1, 0, 0]);
        let crc = crc32fast::hash(&bytes[12..29]);
        bytes[29..33].copy_from_slice(&crc.to_be_bytes());
        let refused = from_bytes(&bytes).unwrap_err();
        let Error::PictureBytes(source) = refused else { panic!("{refused}") };
        assert!(matches!(*source, ImageError::Limits(_)), "{source}");
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

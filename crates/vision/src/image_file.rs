//! Decodes image files as the reference does, `ImageOps.exif_transpose(image).convert("RGB")` of Pillow: with the
//! orientation of EXIF or XMP applied, as RGB, without alpha. Of an animation the first frame counts. Of 16 bits the upper
//! 8 count, also those of gray images, which Pillow clips.

mod jpeg_end;
mod orientation;

use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Seek};
use std::path::Path;

use image::metadata::Orientation;
use image::{
    DynamicImage, ImageBuffer, ImageDecoder, ImageError, ImageReader, Limits, Pixel, RgbImage,
};
use jpeg_end::is_truncated_jpeg;

use crate::error::{Error, Result};

/// Images whose header announces more pixels are rejected: 8192 × 8192.
pub const MAX_PIXELS: u64 = 1 << 26;

/// Bytes that a file's metadata may take when it is decompressed, such as a color profile.
const MAX_METADATA_BYTES: u64 = 16 << 20;

/// Decodes the file at `path`, a PNG, JPEG, WebP or GIF whatever its extension.
///
/// # Errors
/// [`Error::Io`], [`Error::TooLarge`] for more than [`MAX_PIXELS`] (checked before decoding), and [`Error::Image`] for
/// anything but such an image.
pub fn read(path: &Path) -> Result<RgbImage> {
    let file = File::open(path).map_err(Error::io("read", path))?;
    if !file.metadata().map_err(Error::io("read", path))?.is_file() {
        return Err(Error::io("read", path)(std::io::Error::other("it is not a regular file")));
    }
    decode(BufReader::new(file), &format!("`{}`", path.display()))
}

/// [`read`] for the bytes of a file.
///
/// # Errors
/// As [`read`].
pub fn from_bytes(bytes: &[u8]) -> Result<RgbImage> {
    decode(Cursor::new(bytes), "in the request")
}

/// Width and height of the image that [`from_bytes`] returns, from its header.
///
/// # Errors
/// As [`from_bytes`].
pub fn size(bytes: &[u8]) -> Result<(u32, u32)> {
    let (decoder, orientation) = opened(Cursor::new(bytes), "in the request")?;
    let (width, height) = decoder.dimensions();
    use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
    match orientation {
        Rotate90 | Rotate90FlipH | Rotate270 | Rotate270FlipH => Ok((height, width)),
        _ => Ok((width, height)),
    }
}

/// Decodes an image; `name` is for errors.
fn decode(mut source: impl BufRead + Seek, name: &str) -> Result<RgbImage> {
    let failed = |error| broken(name)(ImageError::IoError(error));
    if is_truncated_jpeg(&mut source).map_err(failed)? {
        return Err(failed(std::io::Error::other("the file is truncated")));
    }
    let (decoder, orientation) = opened(source, name)?;
    let image = DynamicImage::from_decoder(decoder);
    let mut image = image.map_err(broken(name))?;
    image.apply_orientation(orientation);
    Ok(upper_bytes(image).into_rgb8())
}

/// The image with 8 bits for each channel, the upper ones of 16, as Pillow. `image` would round them.
fn upper_bytes(image: DynamicImage) -> DynamicImage {
    fn narrowed<To: Pixel<Subpixel = u8>, From: Pixel<Subpixel = u16>>(
        image: ImageBuffer<From, Vec<u16>>,
    ) -> ImageBuffer<To, Vec<u8>> {
        let (width, height) = image.dimensions();
        let bytes = image.into_raw().into_iter().map(|level| (level >> 8) as u8).collect();
        // The pixels have the same channels.
        ImageBuffer::from_raw(width, height, bytes).unwrap_or_default()
    }
    match image {
        DynamicImage::ImageLuma16(image) => DynamicImage::ImageLuma8(narrowed(image)),
        DynamicImage::ImageLumaA16(image) => DynamicImage::ImageLumaA8(narrowed(image)),
        DynamicImage::ImageRgb16(image) => DynamicImage::ImageRgb8(narrowed(image)),
        DynamicImage::ImageRgba16(image) => DynamicImage::ImageRgba8(narrowed(image)),
        other => other,
    }
}

fn broken(name: &str) -> impl Fn(ImageError) -> Error {
    move |source| Error::Image { name: name.to_owned(), source: Box::new(source) }
}

/// A decoder that has read the header, and the orientation.
fn opened<'a>(
    mut source: impl BufRead + Seek + 'a,
    name: &str,
) -> Result<(impl ImageDecoder + 'a, Orientation)> {
    let broken = broken(name);
    let orientation = orientation::find(&mut source);
    let orientation = orientation.map_err(|error| broken(ImageError::IoError(error)))?;
    let reader = ImageReader::new(source).with_guessed_format();
    let mut reader = reader.map_err(|error| broken(ImageError::IoError(error)))?;
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MAX_METADATA_BYTES);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(&broken)?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(Error::TooLarge { name: name.to_owned(), width, height, most: MAX_PIXELS });
    }
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(16 * MAX_PIXELS);
    decoder.set_limits(limits).map_err(&broken)?;
    Ok((decoder, orientation))
}

#[cfg(test)]
mod pillow;

#[cfg(test)]
mod tests {
    use super::*;
    use image::codecs::gif::GifEncoder;
    use image::{Frame, ImageFormat, Rgb, Rgba, RgbaImage};

    fn png(image: &DynamicImage) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, ImageFormat::Png).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn transparent_pixels_keep_their_color() {
        let image = RgbaImage::from_pixel(3, 2, Rgba([10, 20, 30, 0]));
        let read = from_bytes(&png(&image.into())).unwrap();
        assert_eq!(read.get_pixel(1, 1).0, [10, 20, 30]);
    }

    #[test]
    fn webp_and_the_first_frame_of_a_gif_are_decoded() {
        let image = RgbImage::from_fn(4, 3, |x, y| Rgb([60 * x as u8, 80 * y as u8, 9]));
        let mut webp = Cursor::new(Vec::new());
        DynamicImage::from(image.clone()).write_to(&mut webp, ImageFormat::WebP).unwrap();
        assert_eq!(from_bytes(webp.get_ref()).unwrap(), image);
        assert_eq!(size(webp.get_ref()).unwrap(), (4, 3));
        let mut gif = Vec::new();
        let mut encoder = GifEncoder::new(&mut gif);
        for color in [[255, 0, 0, 255], [0, 0, 255, 255]] {
            let frame = RgbaImage::from_pixel(4, 3, Rgba(color));
            encoder.encode_frame(Frame::new(frame)).unwrap();
        }
        drop(encoder);
        assert_eq!(from_bytes(&gif).unwrap(), RgbImage::from_pixel(4, 3, Rgb([255, 0, 0])));
        assert_eq!(size(&gif).unwrap(), (4, 3));
    }

    #[test]
    fn the_size_respects_the_exif_orientation() {
        let bytes = png(&RgbImage::new(5, 3).into());
        assert_eq!(size(&bytes).unwrap(), from_bytes(&bytes).unwrap().dimensions());
        // A JPEG with EXIF orientation 6, a rotation by 90°.
        let mut jpeg = Cursor::new(Vec::new());
        RgbImage::new(16, 8).write_to(&mut jpeg, ImageFormat::Jpeg).unwrap();
        let exif = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
        let length = (exif.len() as u16 + 2).to_be_bytes();
        let jpeg = jpeg.into_inner();
        let rotated = [&jpeg[..2], &[0xff, 0xe1], &length, exif, &jpeg[2..]].concat();
        assert_eq!(from_bytes(&rotated).unwrap().dimensions(), (8, 16));
        assert_eq!(size(&rotated).unwrap(), (8, 16));
    }

    #[test]
    fn a_decompression_bomb_is_rejected_by_its_header() {
        let mut bytes = png(&RgbImage::new(2, 2).into());
        // The header's width and height.
        bytes[16..24].copy_from_slice(&[0, 1, 0, 0, 0, 1, 0, 0]);
        let crc = crc32fast::hash(&bytes[12..29]);
        bytes[29..33].copy_from_slice(&crc.to_be_bytes());
        let rejected = from_bytes(&bytes).unwrap_err();
        assert!(matches!(rejected, Error::TooLarge { width: 65_536, .. }), "{rejected}");
    }

    #[test]
    fn data_beyond_the_pixels_of_a_png_are_not_decompressed() {
        let image = RgbImage::from_fn(2, 2, |x, y| Rgb([x as u8, y as u8, 9]));
        // Two rows with their filters, and 64 MB more.
        let rows = [[0, 0, 0, 9, 1, 0, 9], [0, 0, 1, 9, 1, 1, 9]].concat();
        let stored = |last: u8, data: &[u8]| {
            let length = data.len() as u16;
            [&[last][..], &length.to_le_bytes(), &(!length).to_le_bytes(), data].concat()
        };
        let more = stored(0, &[0; 0xffff]).repeat(1024);
        let zlib = [&[0x78, 1][..], &stored(0, &rows), &more, &stored(1, &[])].concat();
        let body = [b"IDAT", &zlib[..]].concat();
        let (length, crc) = (zlib.len() as u32, crc32fast::hash(&body));
        let bytes = png(&image.clone().into());
        let end = &bytes[bytes.len() - 12..];
        let bomb = [&bytes[..33], &length.to_be_bytes(), &body, &crc.to_be_bytes(), end].concat();
        assert_eq!(from_bytes(&bomb).unwrap(), image);
    }

    #[test]
    fn the_content_of_a_file_counts_and_not_its_extension() {
        let folder = tempfile::tempdir().unwrap();
        let image = RgbImage::from_fn(4, 3, |x, y| Rgb([60 * x as u8, 80 * y as u8, 9]));
        let mut webp = Cursor::new(Vec::new());
        image.write_to(&mut webp, ImageFormat::WebP).unwrap();
        let path = folder.path().join("a.jpg");
        std::fs::write(&path, webp.into_inner()).unwrap();
        assert_eq!(read(&path).unwrap(), image);
        // A bitmap, which is not supported.
        let bitmap = [&b"BM"[..], &[0; 60]].concat();
        std::fs::write(folder.path().join("b.png"), bitmap).unwrap();
        let message = read(&folder.path().join("b.png")).unwrap_err().to_string();
        assert!(message.contains("b.png") && message.contains("not supported"), "{message}");
    }

    #[test]
    fn a_color_profile_is_decompressed_up_to_a_limit_only() {
        let chunk = |kind: &[u8], data: &[u8]| {
            let body = [kind, data].concat();
            let (length, crc) = (data.len() as u32, crc32fast::hash(&body));
            [&length.to_be_bytes()[..], &body, &crc.to_be_bytes()].concat()
        };
        let with_profile = |megabytes: usize| {
            // A zlib stream of stored blocks.
            let block = [&[0, 0xff, 0xff, 0, 0][..], &[0; 0xffff]].concat();
            let last = [1, 0, 0, 0xff, 0xff];
            let zlib = [&[0x78, 1][..], &block.repeat(16 * megabytes), &last].concat();
            // Adler-32 of zeros.
            let length = 0xffff * 16 * megabytes as u64;
            let adler = ((length % 65_521) << 16 | 1) as u32;
            let zlib = [&zlib[..], &adler.to_be_bytes()].concat();
            let bytes = png(&RgbImage::new(2, 2).into());
            // After the header.
            [&bytes[..33], &chunk(b"iCCP", &[b"x\0\0", &zlib[..]].concat()), &bytes[33..]].concat()
        };
        assert_eq!(size(&with_profile(1)).unwrap(), (2, 2));
        assert!(from_bytes(&with_profile(1)).is_ok());
        let error = size(&with_profile(20)).unwrap_err().to_string();
        assert!(error.contains("limit"), "{error}");
    }

    #[test]
    fn a_file_that_is_not_an_image_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("note.png");
        std::fs::write(&path, "not an image").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("note.png"));
        let absent = folder.path().join("absent.png");
        assert!(matches!(read(&absent).unwrap_err(), Error::Io { .. }));
    }
}

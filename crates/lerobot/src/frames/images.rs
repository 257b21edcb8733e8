//! Images in parquet files, as structs of `bytes` and `path`.

use std::collections::BTreeMap;
use std::io::Cursor;

use image::{ImageReader, Limits, RgbImage};

use super::parallel::try_for_each;
use super::{Sink, Wanted};
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::rows::DataFile;
use crate::template::FileIndex;

/// The longest side of an image in pixels, and the most bytes that decoding one may take.
const MAX_SIDE: u32 = 1 << 14;
const MAX_DECODED_BYTES: u64 = 1 << 29;

/// Calls `each` with the images `wanted`, in order.
pub(super) fn for_each<E: From<Error> + Send>(
    dataset: &Dataset,
    camera: &str,
    wanted: &[Wanted],
    each: Sink<'_, E>,
) -> Result<(), E> {
    let mut files: BTreeMap<FileIndex, Vec<Wanted>> = BTreeMap::new();
    for &(id, position) in wanted {
        files.entry(dataset.entries()[id.episode].data).or_default().push((id, position));
    }
    let files: Vec<(FileIndex, Vec<Wanted>)> = files.into_iter().collect();
    try_for_each(&files, |(index, wanted)| {
        let data = DataFile::open(dataset, *index)?;
        let rows = wanted
            .iter()
            .map(|(id, position)| Ok((data.rows_of(id.episode)?.start + id.frame, *position)));
        let mut rows: Vec<(usize, usize)> = rows.collect::<Result<_>>()?;
        rows.sort_unstable();
        for group in data.file().row_groups() {
            let in_group = |(row, _): &&(usize, usize)| group.contains(row);
            let in_group: Vec<_> = rows.iter().filter(in_group).copied().collect();
            let (Some(&(first, _)), Some(&(last, _))) = (in_group.first(), in_group.last()) else {
                continue;
            };
            let table = data.file().read(&[camera], first..last + 1).map_err(Error::from)?;
            let bytes = table.struct_bytes(camera, "bytes").map_err(Error::from)?;
            for (row, position) in in_group {
                let fault = |reason: String| {
                    Error::field(data.file().path(), camera, format!("in row {row} {reason}"))
                };
                let encoded =
                    bytes.get(row - first).ok_or_else(|| fault("is missing".to_owned()))?;
                let image = decode(encoded).map_err(|source| Error::Image {
                    path: data.file().path().to_owned(),
                    field: camera.to_owned(),
                    row,
                    source: Box::new(source),
                })?;
                each(position, image)?;
            }
        }
        Ok(())
    })
}

fn decode(bytes: &[u8]) -> Result<RgbImage, image::ImageError> {
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format()?;
    let mut limits = Limits::no_limits();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_DECODED_BYTES);
    reader.limits(limits);
    Ok(reader.decode()?.into_rgb8())
}

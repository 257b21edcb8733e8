//! The processor's settings in a checkpoint's files.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::patch::Patch;
use super::video_rules::{ResizeRule, VideoRules};
use crate::error::{Error, Result};
use crate::grid::PixelLimits;

/// Color channels.
pub(crate) const CHANNELS: usize = 3;

/// The image processor's own file.
pub(crate) const IMAGE_FILE: &str = "preprocessor_config.json";

/// The video processor's own file, if it differs.
pub(crate) const VIDEO_FILE: &str = "video_preprocessor_config.json";

/// The file of `transformers` 5 that holds both.
const BOTH_FILE: &str = "processor_config.json";

/// The settings for images or for videos.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Settings {
    pub(super) limits: PixelLimits,
    pub(super) patch: Patch,
    /// The factor that rescales a byte.
    pub(super) rescale: f64,
    /// The mean of each channel, subtracted first.
    pub(super) mean: [f64; CHANNELS],
    /// The standard deviation of each channel, which divides next.
    pub(super) deviation: [f64; CHANNELS],
    /// What the limits apply to.
    pub(super) rule: ResizeRule,
}

/// A processor's file, with the defaults of `Qwen2VLImageProcessor`.
#[derive(Deserialize)]
#[serde(default)]
struct Fields {
    min_pixels: Option<usize>,
    max_pixels: Option<usize>,
    size: Option<Size>,
    patch_size: usize,
    temporal_patch_size: usize,
    merge_size: usize,
    rescale_factor: f64,
    image_mean: [f64; CHANNELS],
    image_std: [f64; CHANNELS],
    do_resize: bool,
    do_rescale: bool,
    do_normalize: bool,
    cap_pixels_per_frame: bool,
    max_video_tokens: Option<usize>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Size {
    shortest_edge: Option<usize>,
    longest_edge: Option<usize>,
    min_pixels: Option<usize>,
    max_pixels: Option<usize>,
}

impl Default for Fields {
    fn default() -> Self {
        Self {
            min_pixels: None,
            max_pixels: None,
            size: None,
            patch_size: 14,
            temporal_patch_size: 2,
            merge_size: 2,
            rescale_factor: 1.0 / 255.0,
            image_mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
            image_std: [0.268_629_54, 0.261_302_58, 0.275_777_11],
            do_resize: true,
            do_rescale: true,
            do_normalize: true,
            cap_pixels_per_frame: false,
            max_video_tokens: None,
        }
    }
}

/// Default limits for images.
const IMAGE_LIMITS: PixelLimits = PixelLimits { min_pixels: 56 * 56, max_pixels: 28 * 28 * 1280 };

/// The limits of the published Qwen2.5-VL models.
const PUBLISHED_LIMITS: PixelLimits =
    PixelLimits { min_pixels: 56 * 56, max_pixels: 28 * 28 * 16_384 };

/// The settings for images and for videos in a model's folder; `None` without processor files.
///
/// # Errors
/// A file cannot be read or has unsupported settings; videos have a file of their own by `rules`, which is missing.
pub(crate) fn of_folder(dir: &Path, rules: &VideoRules) -> Result<Option<(Settings, Settings)>> {
    let both = json(&dir.join(BOTH_FILE))?;
    let part = |name: &str| {
        let value = both.as_ref().and_then(|both| both.get(name)).filter(|part| part.is_object());
        value.cloned().map(|value| (dir.join(BOTH_FILE), value))
    };
    let own = |name: &str| -> Result<Option<(PathBuf, Value)>> {
        let path = dir.join(name);
        Ok(json(&path)?.map(|value| (path, value)))
    };
    let Some(images) = own(IMAGE_FILE)?.or(part("image_processor")) else { return Ok(None) };
    let videos = own(VIDEO_FILE)?.or(part("video_processor"));
    if videos.is_none() && rules.own_file {
        return Err(Error::NoVideoProcessor { dir: dir.to_owned() });
    }
    let images_settings = settings(&images, IMAGE_LIMITS, None)?;
    let videos = videos.as_ref().unwrap_or(&images);
    let videos_settings = settings(videos, rules.default_limits, Some(rules))?;
    let (of_images, of_videos) = (images_settings.patch.fields(), videos_settings.patch.fields());
    let differs =
        of_images.iter().zip(of_videos).find(|(of_images, of_videos)| *of_images != of_videos);
    if let Some(((_, wanted), (name, found))) = differs {
        let file = images.0.file_name().unwrap_or_default().display();
        let fault =
            format!("`{name}` is {found}, but {wanted} in `{file}`: is the file another model's?");
        return Err(Error::Processor { path: videos.0.clone(), fault });
    }
    Ok(Some((images_settings, videos_settings)))
}

/// The processor files of a model.
#[derive(Debug, Clone)]
pub(crate) struct ProcessorFiles {
    /// Of the image processor.
    pub(crate) images: Value,
    /// Of the video processor, if it has one of its own.
    pub(crate) videos: Option<Value>,
}

/// The settings in such files for images, and for videos by `rules`; `path` is for errors. Missing limits default to those of
/// the published models.
pub(crate) fn of_files(
    files: ProcessorFiles,
    path: &Path,
    rules: &VideoRules,
) -> Result<(Settings, Settings)> {
    let ProcessorFiles { images, videos } = files;
    let file = |fields| (path.to_owned(), fields);
    let videos = file(videos.unwrap_or_else(|| images.clone()));
    let images = settings(&file(images), PUBLISHED_LIMITS, None)?;
    Ok((images, settings(&videos, PUBLISHED_LIMITS, Some(rules))?))
}

fn json(path: &Path) -> Result<Option<Value>> {
    if !path.is_file() {
        return Ok(None);
    }
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    let failed = |source| Error::Json { path: path.to_owned(), source };
    serde_json::from_slice(&bytes).map(Some).map_err(failed)
}

/// The settings in a file: for images, or for videos by `rules`.
fn settings(
    (path, value): &(PathBuf, Value),
    limits: PixelLimits,
    rules: Option<&VideoRules>,
) -> Result<Settings> {
    // Null fields count as missing.
    let mut value = value.clone();
    if let Some(fields) = value.as_object_mut() {
        fields.retain(|_, field| !field.is_null());
    }
    let failed = |source| Error::Json { path: path.clone(), source };
    let fields: Fields = serde_json::from_value(value).map_err(failed)?;
    fields.settings(limits, rules).map_err(|fault| Error::Processor { path: path.clone(), fault })
}

impl Fields {
    fn settings(self, limits: PixelLimits, rules: Option<&VideoRules>) -> Result<Settings, String> {
        if !(self.do_resize && self.do_rescale && self.do_normalize) {
            let which = "`do_resize`, `do_rescale` and `do_normalize`";
            return Err(format!("one of {which} is false, which is not supported"));
        }
        let size = self.size.unwrap_or_default();
        let limits = PixelLimits {
            min_pixels: self
                .min_pixels
                .or(size.shortest_edge)
                .or(size.min_pixels)
                .unwrap_or(limits.min_pixels),
            max_pixels: self
                .max_pixels
                .or(size.longest_edge)
                .or(size.max_pixels)
                .unwrap_or(limits.max_pixels),
        };
        if limits.min_pixels > limits.max_pixels || limits.max_pixels > MAX_PIXELS {
            let PixelLimits { min_pixels, max_pixels } = limits;
            return Err(format!(
                "the limits of {min_pixels} to {max_pixels} pixels must be ascending and at most {MAX_PIXELS}"
            ));
        }
        let patch = Patch {
            side: self.patch_size,
            frames: self.temporal_patch_size,
            merge: self.merge_size,
        };
        let sizes = patch.fields();
        if let Some((name, size)) = sizes.iter().find(|(_, size)| !(1..=1024).contains(size)) {
            return Err(format!("`{name}` must be from 1 to 1024, not {size}"));
        }
        if let Some(found) = self.max_video_tokens.filter(|most| !(1..=MAX_PIXELS).contains(most)) {
            return Err(format!("`max_video_tokens` must be from 1 to {MAX_PIXELS}, not {found}"));
        }
        let cap = self.cap_pixels_per_frame;
        let of_videos = |rules: &VideoRules| rules.resize(self.max_video_tokens, cap);
        if self.image_std.iter().any(|deviation| !(deviation.is_finite() && *deviation > 0.0)) {
            return Err("`image_std` must have positive numbers only".to_owned());
        }
        Ok(Settings {
            limits,
            patch,
            rescale: self.rescale_factor,
            mean: self.image_mean,
            deviation: self.image_std,
            rule: rules.map_or(ResizeRule::default(), of_videos),
        })
    }
}

/// Larger limits are a mistake in the file.
const MAX_PIXELS: usize = 1 << 28;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::Family;

    fn rules() -> VideoRules {
        Family::default().get().video_rules()
    }

    fn read_files(files: &[(&str, &str)]) -> Result<(Settings, Settings)> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        of_folder(folder.path(), &rules()).map(Option::unwrap)
    }

    #[test]
    fn the_formats_of_the_hub_and_of_transformers_5_are_equivalent() {
        let hub = r#"{"min_pixels": 3136, "max_pixels": 12845056, "patch_size": 14,
            "temporal_patch_size": 2, "merge_size": 2, "image_processor_type": "Qwen2VLImageProcessor"}"#;
        let both = r#"{"image_processor": {"size": {"shortest_edge": 3136, "longest_edge": 12845056},
            "rescale_factor": 0.00392156862745098, "do_pad": null}, "video_processor": {}}"#;
        let (images, videos) = read_files(&[(IMAGE_FILE, hub)]).unwrap();
        assert_eq!((videos.limits, videos.patch), (images.limits, images.patch));
        let (again, videos) = read_files(&[(BOTH_FILE, both)]).unwrap();
        assert_eq!(again, images);
        assert_eq!(videos.limits, rules().default_limits);
    }

    #[test]
    fn missing_and_invalid_fields_are_named() {
        let message = |files: &[(&str, &str)]| read_files(files).unwrap_err().to_string();
        assert!(message(&[(IMAGE_FILE, "{")]).contains(IMAGE_FILE));
        let size = message(&[(IMAGE_FILE, r#"{"merge_size": 0}"#)]);
        assert!(size.contains("`merge_size` must be from 1 to 1024, not 0"), "{size}");
        assert!(message(&[(IMAGE_FILE, r#"{"do_resize": false}"#)]).contains("do_resize"));
        assert!(message(&[(IMAGE_FILE, r#"{"image_std": [1, 0, 1]}"#)]).contains("image_std"));
        let limits = r#"{"min_pixels": 5000, "max_pixels": 4000}"#;
        assert!(message(&[(IMAGE_FILE, limits)]).contains("5000 to 4000"));
    }
}

//! Ground-truth captions of a room's frames.

use embodied_r_data::prompts::FrameText;
use embodied_r_data::scene::{Scene, action_text, view_text};

/// The captions of these video frames, in the format of `data::scene`. Frames out of range are
/// skipped.
pub fn captions_at(scene: &Scene, frames: &[usize]) -> Vec<FrameText> {
    let poses: Vec<_> = frames.iter().filter_map(|&frame| scene.camera.get(frame)).collect();
    (0..poses.len())
        .map(|i| FrameText {
            action: (i > 0).then(|| action_text(poses[i - 1], poses[i])),
            view: view_text(&scene.visible_from(poses[i])),
        })
        .collect()
}

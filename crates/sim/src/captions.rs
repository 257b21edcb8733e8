//! True captions of a room's frames.

use embodied_r_data::prompts::FrameText;
use embodied_r_data::scene::{Scene, action_text, view_text};

/// What the captions of these frames of the room's video say, in the words of `data::scene`.
/// Frames that the video does not have are left out.
pub fn captions_at(scene: &Scene, frames: &[usize]) -> Vec<FrameText> {
    let poses: Vec<_> = frames.iter().filter_map(|&frame| scene.camera.get(frame)).collect();
    (0..poses.len())
        .map(|i| FrameText {
            action: (i > 0).then(|| action_text(poses[i - 1], poses[i])),
            view: view_text(&scene.seen_from(poses[i])),
        })
        .collect()
}

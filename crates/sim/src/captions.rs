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

/// The frames' lines as a perceived prompt holds them: `Frame 0: Observe: …`, then
/// `Frame 1: After rotate left 60, Observe: …`.
pub(crate) fn lines(captions: &[FrameText]) -> String {
    let line = |(index, FrameText { action, view }): (usize, &FrameText)| match action {
        Some(action) => format!("Frame {index}: After {action}, Observe: {view}"),
        None => format!("Frame {index}: Observe: {view}"),
    };
    captions.iter().enumerate().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use embodied_r_data::prompts::perceived;

    use super::*;
    use crate::world::{draw, keyframes_by_pose};

    #[test]
    fn the_lines_are_those_of_a_perceived_prompt() {
        let scene = draw(&[5]);
        let captions = captions_at(&scene, &keyframes_by_pose(&scene));
        let prompt = perceived(&captions, "Question: Where?");
        assert!(prompt.contains(&format!("\n{}\n>", lines(&captions))), "{prompt}");
    }
}

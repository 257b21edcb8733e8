//! What identifies the images of prompts.

use embodied_r_policy::Prompt;

/// The digests of the distinct images and videos of `prompts`, in order.
#[must_use]
pub fn of_prompts<'a>(prompts: impl IntoIterator<Item = &'a Prompt>) -> Vec<u128> {
    let mut digests = Vec::new();
    for image in prompts.into_iter().flat_map(Prompt::images) {
        if !digests.contains(&image.digest) {
            digests.push(image.digest);
        }
    }
    digests
}

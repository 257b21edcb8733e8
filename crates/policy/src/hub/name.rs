//! Names of models on the hub.

/// What a name denotes in a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part<'a> {
    /// `org/name`: a model folder, an adapter, or the only GGUF file.
    Whole,
    /// `org/name/file.gguf`: a file, in a folder or not.
    File(&'a str),
    /// `org/name:Q4_K_M`, as in llama.cpp: the GGUF file with these weights.
    Quantization(&'a str),
}

/// A model's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Name<'a> {
    /// `org/name`.
    pub(super) repo: &'a str,
    pub(super) part: Part<'a>,
}

impl<'a> Name<'a> {
    /// `None` if `text` is no name of the hub.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        if let Some((repo, quantization)) = text.split_once(':') {
            let part = Part::Quantization(quantization);
            return (is_repo(repo) && is_word(quantization)).then_some(Self { repo, part });
        }
        if is_repo(text) {
            return Some(Self { repo: text, part: Part::Whole });
        }
        let second = text.match_indices('/').nth(1)?.0;
        let (repo, file) = (&text[..second], &text[second + 1..]);
        let is_file = is_gguf(file) && file.split('/').all(is_word);
        (is_repo(repo) && is_file).then_some(Self { repo, part: Part::File(file) })
    }
}

fn is_repo(text: &str) -> bool {
    text.split_once('/').is_some_and(|(org, name)| is_word(org) && is_word(name))
}

fn is_word(text: &str) -> bool {
    let letters = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    !text.is_empty() && text.bytes().all(letters) && !text.starts_with(['.', '-'])
}

/// Whether a file name has the extension of GGUF.
pub(super) fn is_gguf(file: &str) -> bool {
    file.to_ascii_lowercase().ends_with(".gguf")
}

/// Whether a GGUF file's name ends with the name of the quantization, as in `qwen2.5-3b-instruct-q4_k_m.gguf`.
pub(super) fn has_quantization(file: &str, quantization: &str) -> bool {
    let file = file.to_ascii_lowercase();
    let Some(stem) = file.strip_suffix(".gguf") else { return false };
    let rest = stem.strip_suffix(&quantization.to_ascii_lowercase());
    rest.is_some_and(|rest| rest.is_empty() || rest.ends_with(['-', '.', '_', '/']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_files_and_quantizations_are_told_apart() {
        let of = |text| Name::parse(text).map(|name| (name.repo, name.part));
        assert_eq!(of("org/a-B_2.5"), Some(("org/a-B_2.5", Part::Whole)));
        assert_eq!(of("org/a/x.gguf"), Some(("org/a", Part::File("x.gguf"))));
        assert_eq!(of("org/a/b/x.GGUF"), Some(("org/a", Part::File("b/x.GGUF"))));
        assert_eq!(of("org/a:Q4_K_M"), Some(("org/a", Part::Quantization("Q4_K_M"))));
        for text in
            ["a", "org/", "/a", "org/a/b", "org/a/../x.gguf", "org/a:", "org/a:b/c", "./a", "a b/c"]
        {
            assert_eq!(of(text), None, "{text}");
        }
    }

    #[test]
    fn a_quantization_is_the_end_of_a_file_name() {
        assert!(has_quantization("Qwen2.5-3B-Instruct-Q4_K_M.gguf", "q4_k_m"));
        assert!(has_quantization("BF16/model.BF16.gguf", "bf16"));
        assert!(!has_quantization("model-IQ4_K_M.gguf", "Q4_K_M"));
        assert!(!has_quantization("model-Q4_K_M.gguf", "Q4_K"));
        assert!(!has_quantization("model-Q4_K_M.safetensors", "Q4_K_M"));
    }
}

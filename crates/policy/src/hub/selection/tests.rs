use super::*;

const GGUF: [&str; 5] =
    ["README.md", "vl-Q4_K_M.gguf", "vl-Q8_0.gguf", "mmproj-vl-Q8_0.gguf", "mmproj-vl-f16.gguf"];

fn selected(all: &[&str], name: &str, needs: Needs) -> Result<Vec<String>, String> {
    let name = Name::parse(name).unwrap();
    select(all, name, needs).map(|it| it.files).map_err(|fault| fault.to_string())
}

#[test]
fn a_quantization_is_one_file_and_the_vision_encoder_comes_only_if_needed() {
    let of = |needs| selected(&GGUF, "org/vl:q4_k_m", needs).unwrap();
    assert_eq!(of(Needs::Decoder), ["vl-Q4_K_M.gguf"]);
    assert_eq!(of(Needs::VisionEncoder), ["mmproj-vl-f16.gguf", "vl-Q4_K_M.gguf"]);
}

#[test]
fn a_vision_encoder_is_taken_from_the_decoders_folder() {
    let all = ["a/vl-Q8_0.gguf", "b/mmproj-f16.gguf", "a/mmproj-bf16.gguf"];
    let files = selected(&all, "org/vl/a/vl-Q8_0.gguf", Needs::VisionEncoder).unwrap();
    assert_eq!(files, ["a/mmproj-bf16.gguf", "a/vl-Q8_0.gguf"]);
}

#[test]
fn a_choice_of_gguf_files_is_an_error_that_lists_them() {
    let message = selected(&GGUF, "org/vl", Needs::Decoder).unwrap_err();
    let listed = "; it has vl-Q4_K_M.gguf, vl-Q8_0.gguf";
    assert!(message.contains("`org/vl:Q4_K_M`") && message.ends_with(listed), "{message}");
    let message = selected(&GGUF, "org/vl:Q5_K_M", Needs::Decoder).unwrap_err();
    assert_eq!(message, format!("no GGUF file has quantization `Q5_K_M`{listed}"));
    let message = selected(&GGUF, "org/vl/x.gguf", Needs::Decoder).unwrap_err();
    assert_eq!(message, format!("it has no file `x.gguf`{listed}"));
    let twice = ["a/x-Q8_0.gguf", "b/x-Q8_0.gguf"];
    let message = selected(&twice, "org/vl:Q8_0", Needs::Decoder).unwrap_err();
    assert!(message.starts_with("more than one GGUF file has quantization `Q8_0`"), "{message}");
}

#[test]
fn the_only_gguf_file_needs_no_name() {
    let all = ["README.md", "x-Q8_0.gguf", "mmproj-x.gguf", "config.json"];
    assert_eq!(selected(&all, "org/x", Needs::Decoder).unwrap(), ["x-Q8_0.gguf"]);
}

#[test]
fn a_split_model_is_refused() {
    let all = ["x-q8_0-00001-of-00002.gguf", "x-q8_0-00002-of-00002.gguf"];
    for name in ["org/x:Q8_0", "org/x/x-q8_0-00001-of-00002.gguf"] {
        let message = selected(&all, name, Needs::Decoder).unwrap_err();
        assert!(message.contains("llama-gguf-split --merge"), "{name}: {message}");
    }
}

#[test]
fn an_adapter_is_selected_where_there_is_no_model_or_one_is_asked_for() {
    let adapter = ["README.md", lora::CONFIG_FILE, lora::WEIGHTS_FILE, "tokenizer.json"];
    let files = [lora::CONFIG_FILE, "tokenizer.json", lora::WEIGHTS_FILE];
    assert_eq!(selected(&adapter, "org/a", Needs::Decoder).unwrap(), files);
    let both = [&adapter[..], &["config.json", SINGLE_FILE]].concat();
    assert!(selected(&both, "org/a", Needs::Decoder).unwrap().contains(&SINGLE_FILE.to_owned()));
    let files = selected(&both, "org/a", Needs::Adapter).unwrap();
    assert!(files.contains(&lora::WEIGHTS_FILE.to_owned()));
    assert!(!files.contains(&SINGLE_FILE.to_owned()));
    let message = selected(&["config.json", SINGLE_FILE], "org/a", Needs::Adapter).unwrap_err();
    assert!(message.contains(lora::WEIGHTS_FILE), "{message}");
}

#[test]
fn a_repository_without_weights_is_refused() {
    let message = selected(&["README.md", "config.json"], "org/a", Needs::Decoder).unwrap_err();
    assert!(message.contains("neither safetensors, nor a GGUF file"), "{message}");
}

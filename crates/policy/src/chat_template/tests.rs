use serde_json::json;

use super::*;

fn template(source: &str) -> ChatTemplate {
    let config = json!({ "eos_token": "<|im_end|>", "bos_token": { "content": "<s>" } });
    ChatTemplate::compile(PathBuf::from("t.jinja"), source.to_owned(), &config).unwrap()
}

fn rendered(source: &str, messages: &[ChatMessage]) -> String {
    template(source).render(messages, Generation::Prompt).unwrap()
}

fn talk() -> Vec<ChatMessage> {
    vec![
        ChatMessage::system("Be brief."),
        ChatMessage::user("  Where?\n"),
        ChatMessage::assistant("There \"é\" <b>."),
    ]
}

/// The plain conversation of the template that Qwen2.5's instruction-tuned models have.
const CHATML: &str = "\
{%- if messages[0]['role'] != 'system' %}
    {{- '<|im_start|>system\\nYou are helpful.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == \"user\") or (message.role == \"system\" and not loop.first) or \
        (message.role == \"assistant\" and not message.tool_calls) or message.role == \"system\" %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
";

#[test]
fn chatml_is_rendered_to_the_letter() {
    let turns = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n  Where?\n<|im_end|>\n\
                 <|im_start|>assistant\nThere \"é\" <b>.<|im_end|>\n";
    assert_eq!(rendered(CHATML, &talk()), format!("{turns}<|im_start|>assistant\n"));
    assert_eq!(template(CHATML).render(&talk(), Generation::None).unwrap(), turns);
    let asked = rendered(CHATML, &[ChatMessage::user("Hi")]);
    assert!(asked.starts_with(
        "<|im_start|>system\nYou are helpful.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
    ));
}

#[test]
fn blocks_take_their_line_with_them() {
    let source = "a\n  {% if true %}\nb\n  {% endif %}\nc\n";
    assert_eq!(rendered(source, &[]), "a\nb\nc");
}

#[test]
fn nothing_is_escaped_for_html() {
    assert_eq!(rendered("{{ messages[2].content }}", &talk()), "There \"é\" <b>.");
}

#[test]
fn the_methods_and_tests_of_python_are_there() {
    let source = "{{ messages[1]['content'].strip() }}|{{ messages[0].content.split(' ')[1] }}|\
                  {{ messages[1:] | length }}|{{ messages[0].content is string }}|\
                  {{ messages[0].content.startswith('Be') and not messages[0].content.endswith('x') }}|\
                  {{ messages[0].items() | list | length }}|{{ messages[0].get('name') is none }}";
    assert_eq!(rendered(source, &talk()), "Where?|brief.|2|True|True|2|True");
}

#[test]
fn state_survives_a_loop_in_a_namespace() {
    let source = "{%- set ns = namespace(last='') -%}{%- for m in messages -%}{%- set ns.last = m.role -%}\
                  {%- if loop.index0 == 1 -%}{%- break -%}{%- endif -%}{%- endfor -%}{{ ns.last }}";
    assert_eq!(rendered(source, &talk()), "user");
}

#[test]
fn special_tokens_and_absent_tools_are_known_to_the_template() {
    let source = "{{ bos_token }}{{ eos_token }}{% if tools is none and not tools %}-{% endif %}{{ pad_token }}";
    assert_eq!(rendered(source, &[]), "<s><|im_end|>-");
}

#[test]
fn tojson_writes_what_python_writes() {
    let source = "{{ {'a': [1, 2.5, true, none], 'b': 'é<\\n'} | tojson }}";
    assert_eq!(rendered(source, &[]), r#"{"a": [1, 2.5, true, null], "b": "é<\n"}"#);
    assert_eq!(
        rendered("{{ {'a': [1]} | tojson(indent=2) }}", &[]),
        "{\n  \"a\": [\n    1\n  ]\n}"
    );
}

#[test]
fn a_template_says_why_it_refuses() {
    let source = "{{ raise_exception('the roles must alternate') }}";
    let told = template(source).render(&talk(), Generation::None).unwrap_err().to_string();
    assert!(
        told.starts_with("the chat template of `t.jinja` failed")
            && told.contains("the roles must alternate")
    );
}

#[test]
fn the_date_is_in_the_form_asked_for() {
    let year = rendered("{{ strftime_now('%Y') }}", &[]);
    assert!(year.len() == 4 && year.bytes().all(|b| b.is_ascii_digit()), "{year}");
    let told = template("{{ strftime_now('%!') }}")
        .render(&[] as &[ChatMessage], Generation::None)
        .unwrap_err()
        .to_string();
    assert!(told.contains("`%!` is no format of a date"), "{told}");
}

#[test]
fn a_template_with_a_fault_is_refused_before_it_is_used() {
    let error = ChatTemplate::compile(PathBuf::from("t.jinja"), "{% if %}".to_owned(), &json!({}))
        .unwrap_err();
    assert!(matches!(error, Error::ChatTemplate { .. }), "{error}");
}

fn found(dir: &Path, config: &serde_json::Value) -> Result<Option<String>> {
    let template = ChatTemplate::find(dir, config)?;
    template.map(|template| template.render(&[] as &[ChatMessage], Generation::None)).transpose()
}

#[test]
fn a_file_of_its_own_wins_over_the_configuration_and_that_over_the_processor_s() {
    let dir = tempfile::tempdir().unwrap();
    let config = json!({ "chat_template": "configuration" });
    assert_eq!(found(dir.path(), &json!({})).unwrap(), None);
    std::fs::write(dir.path().join("chat_template.json"), r#"{"chat_template": "processor"}"#)
        .unwrap();
    assert_eq!(found(dir.path(), &json!({})).unwrap().as_deref(), Some("processor"));
    assert_eq!(found(dir.path(), &config).unwrap().as_deref(), Some("configuration"));
    std::fs::write(dir.path().join("chat_template.jinja"), "own").unwrap();
    assert_eq!(found(dir.path(), &config).unwrap().as_deref(), Some("own"));
}

#[test]
fn of_several_templates_the_default_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let list = |name: &str| {
        json!({ "chat_template": [
            { "name": "tool_use", "template": "tools" }, { "name": name, "template": "plain" },
        ]})
    };
    assert_eq!(found(dir.path(), &list("default")).unwrap().as_deref(), Some("plain"));
    let told = found(dir.path(), &list("rag")).unwrap_err().to_string();
    assert!(told.ends_with("has no template named `default`, found `tool_use, rag`"), "{told}");
}

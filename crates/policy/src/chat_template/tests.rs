use serde_json::json;

use super::*;

fn template(source: &str) -> ChatTemplate {
    let config = json!({ "eos_token": "<|im_end|>", "bos_token": { "content": "<s>" } });
    ChatTemplate::new(PathBuf::from("t.jinja"), Source::Jinja(source.to_owned()), &config)
}

fn rendered(source: &str, messages: &[ChatMessage]) -> String {
    template(source).render(&json!(messages), GenerationPrompt::Append, &json!({})).unwrap()
}

fn conversation() -> Vec<ChatMessage> {
    vec![
        ChatMessage::system("Be brief."),
        ChatMessage::user("  Where?\n"),
        ChatMessage::assistant("There \"é\" <b>."),
    ]
}

/// The chat template of Qwen2.5's instruction-tuned models without tools.
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
fn chatml_is_rendered_exactly() {
    let turns = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n  Where?\n<|im_end|>\n\
                 <|im_start|>assistant\nThere \"é\" <b>.<|im_end|>\n";
    assert_eq!(rendered(CHATML, &conversation()), format!("{turns}<|im_start|>assistant\n"));
    assert_eq!(
        template(CHATML)
            .render(&json!(conversation()), GenerationPrompt::None, &json!({}))
            .unwrap(),
        turns
    );
    let single = rendered(CHATML, &[ChatMessage::user("Hi")]);
    assert!(single.starts_with(
        "<|im_start|>system\nYou are helpful.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
    ));
}

#[test]
fn block_lines_leave_no_blank_lines() {
    let source = "a\n  {% if true %}\nb\n  {% endif %}\nc\n";
    assert_eq!(rendered(source, &[]), "a\nb\nc");
}

#[test]
fn nothing_is_escaped_for_html() {
    assert_eq!(rendered("{{ messages[2].content }}", &conversation()), "There \"é\" <b>.");
}

#[test]
fn pythons_string_methods_and_tests_are_supported() {
    let source = "{{ messages[1]['content'].strip() }}|{{ messages[0].content.split(' ')[1] }}|\
                  {{ messages[1:] | length }}|{{ messages[0].content is string }}|\
                  {{ messages[0].content.startswith('Be') and not messages[0].content.endswith('x') }}|\
                  {{ messages[0].items() | list | length }}|{{ messages[0].get('name') is none }}";
    assert_eq!(rendered(source, &conversation()), "Where?|brief.|2|True|True|2|True");
}

#[test]
fn a_namespace_keeps_state_across_a_loop() {
    let source = "{%- set ns = namespace(last='') -%}{%- for m in messages -%}{%- set ns.last = m.role -%}\
                  {%- if loop.index0 == 1 -%}{%- break -%}{%- endif -%}{%- endfor -%}{{ ns.last }}";
    assert_eq!(rendered(source, &conversation()), "user");
}

#[test]
fn special_tokens_and_absent_tools_are_defined_in_the_template() {
    let source = "{{ bos_token }}{{ eos_token }}{% if tools is none and not tools %}-{% endif %}{{ pad_token }}";
    assert_eq!(rendered(source, &[]), "<s><|im_end|>-");
}

#[test]
fn tojson_matches_python() {
    let source = "{{ {'a': [1, 2.5, true, none], 'b': 'é<\\n'} | tojson }}";
    assert_eq!(rendered(source, &[]), r#"{"a": [1, 2.5, true, null], "b": "é<\n"}"#);
    assert_eq!(
        rendered("{{ {'a': [1]} | tojson(indent=2) }}", &[]),
        "{\n  \"a\": [\n    1\n  ]\n}"
    );
}

#[test]
fn raise_exception_is_reported_with_its_message() {
    let source = "{{ raise_exception('the roles must alternate') }}";
    let message = template(source)
        .render(&json!(conversation()), GenerationPrompt::None, &json!({}))
        .unwrap_err()
        .to_string();
    assert!(
        message.starts_with("the chat template of `t.jinja` failed")
            && message.contains("the roles must alternate")
    );
}

#[test]
fn the_date_follows_the_format_string() {
    let year = rendered("{{ strftime_now('%Y') }}", &[]);
    assert!(year.len() == 4 && year.bytes().all(|b| b.is_ascii_digit()), "{year}");
    let message = template("{{ strftime_now('%!') }}")
        .render(&json!([]), GenerationPrompt::None, &json!({}))
        .unwrap_err()
        .to_string();
    assert!(message.contains("`%!` is not a valid date format"), "{message}");
}

#[test]
fn an_invalid_template_is_reported_when_it_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let jinja = dir.path().join("chat_template.jinja");
    for (bytes, expected) in [
        (&b"a\n{% if %}"[..], "failed: unexpected `%}`, expected an expression (line 2"),
        (b"\xff", "cannot be read: stream did not contain valid UTF-8"),
    ] {
        std::fs::write(&jinja, bytes).unwrap();
        let template = ChatTemplate::find(dir.path(), &json!({})).unwrap();
        let rendered = template.render(&json!([]), GenerationPrompt::None, &json!({}));
        let message = rendered.unwrap_err().to_string();
        assert!(
            message.contains("chat_template.jinja` failed") && message.contains(expected),
            "{message}"
        );
    }
    std::fs::remove_file(jinja).unwrap();
    std::fs::write(dir.path().join("chat_template.json"), "{").unwrap();
    let template = ChatTemplate::find(dir.path(), &json!({})).unwrap();
    let rendered = template.render(&json!([]), GenerationPrompt::None, &json!({}));
    let message = rendered.unwrap_err().to_string();
    assert!(message.contains("chat_template.json` failed"), "{message}");
}

fn found(dir: &Path, config: &serde_json::Value) -> Result<Option<String>> {
    let template = ChatTemplate::find(dir, config);
    template
        .map(|template| template.render(&json!([]), GenerationPrompt::None, &json!({})))
        .transpose()
}

#[test]
fn the_jinja_file_takes_precedence_over_the_configuration_and_that_over_the_processor() {
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
fn the_default_of_several_templates_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let list = |name: &str| {
        json!({ "chat_template": [
            { "name": "tool_use", "template": "tools" }, { "name": name, "template": "plain" },
        ]})
    };
    assert_eq!(found(dir.path(), &list("default")).unwrap().as_deref(), Some("plain"));
    let message = found(dir.path(), &list("rag")).unwrap_err().to_string();
    assert!(
        message.ends_with("has no template named `default`, found `tool_use, rag`"),
        "{message}"
    );
}

#[test]
fn variables_of_a_request_are_defined_in_the_template() {
    let source = "{{ enable_thinking }}{{ add_generation_prompt }}{{ eos_token }}";
    let variables = json!({ "enable_thinking": false });
    let text = template(source).render(&json!([]), GenerationPrompt::Append, &variables).unwrap();
    assert_eq!(text, "FalseTrue<|im_end|>");
}

#[test]
fn a_long_conversation_is_within_the_limits() {
    let messages: Vec<ChatMessage> = (0..2000)
        .flat_map(|_| [ChatMessage::user("x".repeat(500)), ChatMessage::assistant("y".repeat(500))])
        .collect();
    let text =
        template(CHATML).render(&json!(messages), GenerationPrompt::Append, &json!({})).unwrap();
    assert_eq!(text.matches("<|im_start|>").count(), 2 * 2000 + 2);
    let long = [ChatMessage::user("x".repeat(40 << 20))];
    assert!(
        template(CHATML).render(&json!(long), GenerationPrompt::Append, &json!({})).unwrap().len()
            > 40 << 20
    );
}

//! Wire types of `POST /chat/completions`.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::ser::{SerializeMap, SerializeSeq, SerializeStruct};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

/// Author of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions.
    System,
    /// The user.
    User,
    /// The model.
    Assistant,
}

/// One content part of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContentPart {
    /// Plain text.
    Text(String),
    /// The URL of an image, such as a data URL.
    Image(String),
}

impl ContentPart {
    /// A JPEG file as a data URL.
    pub fn jpeg(bytes: &[u8]) -> Self {
        Self::Image(format!("data:image/jpeg;base64,{}", STANDARD.encode(bytes)))
    }
}

impl Serialize for ContentPart {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Url<'a> {
            url: &'a str,
        }
        let mut map = serializer.serialize_map(Some(2))?;
        match self {
            Self::Text(text) => {
                map.serialize_entry("type", "text")?;
                map.serialize_entry("text", text)?;
            }
            Self::Image(url) => {
                map.serialize_entry("type", "image_url")?;
                map.serialize_entry("image_url", &Url { url })?;
            }
        }
        map.end()
    }
}

/// One message of a conversation.
///
/// Plain text is serialized as a string, for servers that accept no other form; a message with images
/// as a list of content parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatCompletionMessage {
    /// The author.
    pub role: Role,
    /// Text and images, in order.
    pub content: Vec<ContentPart>,
}

impl ChatCompletionMessage {
    /// An earlier completion of the model.
    pub fn assistant(text: impl Into<String>) -> Self {
        Self { role: Role::Assistant, content: vec![ContentPart::Text(text.into())] }
    }

    /// Instructions.
    pub fn system(text: impl Into<String>) -> Self {
        Self { role: Role::System, content: vec![ContentPart::Text(text.into())] }
    }

    /// Text of the user.
    pub fn user(text: impl Into<String>) -> Self {
        Self { role: Role::User, content: vec![ContentPart::Text(text.into())] }
    }
}

impl Serialize for ChatCompletionMessage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Parts<'a>(&'a [ContentPart]);
        impl Serialize for Parts<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if let [ContentPart::Text(text)] = self.0 {
                    return serializer.serialize_str(text);
                }
                let mut parts = serializer.serialize_seq(Some(self.0.len()))?;
                for part in self.0 {
                    parts.serialize_element(part)?;
                }
                parts.end()
            }
        }
        let mut message = serializer.serialize_struct("Message", 2)?;
        message.serialize_field("role", &self.role)?;
        message.serialize_field("content", &Parts(&self.content))?;
        message.end()
    }
}

/// A chat completion request. Fields that are `None` keep the server's default.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ChatCompletionRequest {
    /// The model's name at the server.
    pub model: String,
    /// The conversation so far.
    pub messages: Vec<ChatCompletionMessage>,
    /// Sampling temperature; 0 is greedy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Nucleus sampling's cumulative probability, in (0, 1].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    /// Maximum tokens of the completion.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    /// Sampling seed, if the server supports it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Stop sequences.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stop: Vec<String>,
    /// Further fields, serialized unchanged.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl ChatCompletionRequest {
    /// A request with the server's default settings.
    pub fn new(model: impl Into<String>, messages: Vec<ChatCompletionMessage>) -> Self {
        Self {
            model: model.into(),
            messages,
            temperature: None,
            top_p: None,
            max_tokens: None,
            seed: None,
            stop: Vec::new(),
            extra: Map::new(),
        }
    }
}

/// Token usage of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// Prompt tokens, images included.
    pub prompt_tokens: u64,
    /// Completion tokens.
    pub completion_tokens: u64,
}

/// A chat completion.
#[derive(Debug, Clone, PartialEq)]
pub struct ChatCompletion {
    /// The text of the first choice; may be empty.
    pub text: String,
    /// The finish reason: `stop`, `length`, `content_filter` …
    pub finish_reason: Option<String>,
    /// The refusal message, if the server reports it separately.
    pub refusal: Option<String>,
    /// Token usage, if the server reports it.
    pub usage: Option<Usage>,
    /// How often the request was sent.
    pub attempts: u32,
    /// Latency from the first attempt to the response, back-off included.
    pub elapsed: Duration,
}

/// How a completion ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompletionStatus {
    /// The model finished.
    Complete,
    /// Truncated at the token limit.
    Truncated,
    /// Refused by the model or a content filter.
    Refused,
}

impl ChatCompletion {
    /// How the completion ended, as reported by the server.
    pub fn status(&self) -> CompletionStatus {
        match self.finish_reason.as_deref() {
            Some("content_filter") => CompletionStatus::Refused,
            _ if self.refusal.is_some() => CompletionStatus::Refused,
            Some("length") => CompletionStatus::Truncated,
            _ => CompletionStatus::Complete,
        }
    }
}

/// The used fields of a response body.
pub(crate) struct Parsed {
    pub(crate) text: String,
    pub(crate) finish_reason: Option<String>,
    pub(crate) refusal: Option<String>,
    pub(crate) usage: Option<Usage>,
}

/// Parses a response body.
///
/// # Errors
/// Why it is not a chat completion, in one line.
pub(crate) fn parse(body: &[u8]) -> Result<Parsed, String> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(default)]
        choices: Vec<Choice>,
        #[serde(default)]
        usage: Option<Usage>,
        #[serde(default)]
        error: Option<Value>,
    }
    #[derive(Deserialize)]
    struct Choice {
        message: ResponseMessage,
        #[serde(default)]
        finish_reason: Option<String>,
    }
    #[derive(Deserialize)]
    struct ResponseMessage {
        #[serde(default)]
        content: Option<ResponseContent>,
        #[serde(default)]
        refusal: Option<String>,
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum ResponseContent {
        Text(String),
        Parts(Vec<ResponsePart>),
    }
    #[derive(Deserialize)]
    struct ResponsePart {
        #[serde(default)]
        text: String,
    }

    let body: Body = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let Some(choice) = body.choices.into_iter().next() else {
        return Err(match body.error {
            Some(error) => error_message(&error),
            None => "it has no `choices`".to_owned(),
        });
    };
    let text = match choice.message.content {
        Some(ResponseContent::Text(text)) => text,
        Some(ResponseContent::Parts(parts)) => parts.into_iter().map(|part| part.text).collect(),
        None => String::new(),
    };
    let refusal = choice.message.refusal.filter(|text| !text.trim().is_empty());
    Ok(Parsed { text, finish_reason: choice.finish_reason, refusal, usage: body.usage })
}

/// What an error body says beyond the status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ErrorKind {
    /// A content filter rejected the request.
    ContentFilter,
    /// The account's quota is used up.
    InsufficientQuota,
    /// No more than the status.
    Status,
}

/// Recognizes the error codes of OpenAI, Azure and DashScope for content filters and quotas.
pub(crate) fn error_kind(body: &Value) -> ErrorKind {
    let inner = body.get("error").unwrap_or(body);
    let fields =
        [inner.get("code"), inner.get("type"), inner.get("innererror").and_then(|e| e.get("code"))];
    let codes = fields.into_iter().flatten().filter_map(Value::as_str);
    let normalized = |code: &str| code.replace(['_', '-', ' '], "").to_lowercase();
    for code in codes.map(normalized) {
        match code.as_str() {
            "contentfilter"
            | "contentpolicyviolation"
            | "datainspectionfailed"
            | "responsibleaipolicyviolation"
            | "moderationblocked" => return ErrorKind::ContentFilter,
            "insufficientquota" | "billinghardlimitreached" | "arrearage" => {
                return ErrorKind::InsufficientQuota;
            }
            _ => {}
        }
    }
    ErrorKind::Status
}

/// The message of an error body, which comes in several shapes: `{"message": …}`, `{"error": …}`,
/// `{"detail": …}`, or text.
pub(crate) fn error_message(error: &Value) -> String {
    let inner = ["message", "error", "detail"].iter().find_map(|field| error.get(field));
    match (error, inner) {
        (Value::String(text), _) => text.clone(),
        (_, Some(inner)) => error_message(inner),
        (other, None) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn plain_text_is_serialized_as_a_string() {
        let request = ChatCompletionRequest::new(
            "m",
            vec![ChatCompletionMessage::system("s"), ChatCompletionMessage::user("u")],
        );
        assert_eq!(
            serde_json::to_value(&request).unwrap(),
            json!({"model": "m", "messages": [
                {"role": "system", "content": "s"}, {"role": "user", "content": "u"}]})
        );
    }

    #[test]
    fn images_are_serialized_as_parts_with_data_urls() {
        let message = ChatCompletionMessage {
            role: Role::User,
            content: vec![ContentPart::jpeg(&[0xff, 0xd8]), ContentPart::Text("what?".into())],
        };
        assert_eq!(
            serde_json::to_value(&message).unwrap(),
            json!({"role": "user", "content": [
                {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,/9g="}},
                {"type": "text", "text": "what?"}]})
        );
    }

    #[test]
    fn only_given_settings_are_serialized() {
        let mut request = ChatCompletionRequest {
            temperature: Some(0.1),
            max_tokens: Some(10),
            ..ChatCompletionRequest::new("m", vec![])
        };
        request.extra.insert("top_k".into(), json!(1));
        assert_eq!(
            serde_json::to_value(&request).unwrap(),
            json!({"model": "m", "messages": [], "temperature": 0.1, "max_tokens": 10, "top_k": 1})
        );
    }

    #[test]
    fn a_completion_is_parsed_with_its_usage() {
        let body = json!({"choices": [{"message": {"role": "assistant", "content": "hi"},
            "finish_reason": "stop"}], "usage": {"prompt_tokens": 3, "completion_tokens": 1,
            "total_tokens": 4}});
        let parsed = parse(body.to_string().as_bytes()).unwrap();
        assert_eq!(parsed.text, "hi");
        assert_eq!(parsed.finish_reason.as_deref(), Some("stop"));
        assert_eq!(parsed.usage, Some(Usage { prompt_tokens: 3, completion_tokens: 1 }));
    }

    #[test]
    fn content_parts_are_joined_and_null_is_empty() {
        let parts =
            br#"{"choices":[{"message":{"content":[{"type":"text","text":"a"},{"text":"b"}]}}]}"#;
        assert_eq!(parse(parts).unwrap().text, "ab");
        assert_eq!(parse(br#"{"choices":[{"message":{"content":null}}]}"#).unwrap().text, "");
    }

    fn completion(message: Value, finish_reason: &str) -> ChatCompletion {
        let body = json!({"choices": [{"message": message, "finish_reason": finish_reason}]});
        let Parsed { text, finish_reason, refusal, usage } =
            parse(body.to_string().as_bytes()).unwrap();
        ChatCompletion { text, finish_reason, refusal, usage, attempts: 1, elapsed: Duration::ZERO }
    }

    #[test]
    fn refused_and_truncated_completions_are_distinguished_from_complete_ones() {
        let message = json!({"content": "a lamp", "refusal": null});
        assert_eq!(completion(message.clone(), "stop").status(), CompletionStatus::Complete);
        assert_eq!(completion(message.clone(), "length").status(), CompletionStatus::Truncated);
        assert_eq!(completion(message, "content_filter").status(), CompletionStatus::Refused);
        let refused = json!({"content": null, "refusal": "I cannot help with that."});
        assert_eq!(completion(refused, "stop").status(), CompletionStatus::Refused);
    }

    #[test]
    fn filters_and_quotas_are_distinguished_from_other_errors() {
        for (body, kind) in [
            (json!({"error": {"code": "content_policy_violation"}}), ErrorKind::ContentFilter),
            (json!({"error": {"code": "content_filter", "status": 400}}), ErrorKind::ContentFilter),
            (json!({"error": {"code": "data_inspection_failed"}}), ErrorKind::ContentFilter),
            (json!({"code": "DataInspectionFailed", "message": "no"}), ErrorKind::ContentFilter),
            (
                json!({"error": {"code": null, "type": "insufficient_quota"}}),
                ErrorKind::InsufficientQuota,
            ),
            (json!({"error": {"code": 400, "type": "BadRequestError"}}), ErrorKind::Status),
            (json!("no"), ErrorKind::Status),
        ] {
            assert_eq!(error_kind(&body), kind, "{body}");
        }
    }

    #[test]
    fn an_invalid_body_gives_a_reason() {
        let reason = |body: &str| parse(body.as_bytes()).err().unwrap();
        assert!(reason("{\"choices\": [").contains("EOF"));
        assert_eq!(reason("{}"), "it has no `choices`");
        assert_eq!(reason(r#"{"error":{"message":"out of memory","code":500}}"#), "out of memory");
    }

    #[test]
    fn the_error_message_is_found_in_every_shape() {
        for error in [
            json!({"error": {"message": "no"}}),
            json!({"error": "no"}),
            json!({"detail": "no"}),
            json!({"object": "error", "message": "no"}),
            json!("no"),
        ] {
            assert_eq!(error_message(&error), "no");
        }
    }
}

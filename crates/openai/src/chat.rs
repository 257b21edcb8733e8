//! Requests and replies of `POST /chat/completions`.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::ser::{SerializeMap, SerializeSeq, SerializeStruct};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The instructions.
    System,
    /// The user.
    User,
    /// The model.
    Assistant,
}

/// One piece of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Plain text.
    Text(String),
    /// An image by its URL, such as a data URL.
    Image(String),
}

impl Content {
    /// A JPEG file's bytes as a data URL.
    pub fn jpeg(bytes: &[u8]) -> Self {
        Self::Image(format!("data:image/jpeg;base64,{}", STANDARD.encode(bytes)))
    }
}

impl Serialize for Content {
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
/// A message of text alone is written as a string, for servers that know no other form; one with
/// images as a list of parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said and shown, in order.
    pub content: Vec<Content>,
}

impl Message {
    /// Words of the model, as a part of the conversation so far.
    pub fn assistant(text: impl Into<String>) -> Self {
        Self { role: Role::Assistant, content: vec![Content::Text(text.into())] }
    }

    /// Instructions.
    pub fn system(text: impl Into<String>) -> Self {
        Self { role: Role::System, content: vec![Content::Text(text.into())] }
    }

    /// Words of the user.
    pub fn user(text: impl Into<String>) -> Self {
        Self { role: Role::User, content: vec![Content::Text(text.into())] }
    }
}

impl Serialize for Message {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Parts<'a>(&'a [Content]);
        impl Serialize for Parts<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if let [Content::Text(text)] = self.0 {
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

/// What is asked of the model. What is `None` is left to the server.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ChatRequest {
    /// The name that the server knows the model by.
    pub model: String,
    /// The conversation so far.
    pub messages: Vec<Message>,
    /// Sampling temperature; 0 is greedy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Nucleus sampling's share of probability, in (0, 1].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    /// The most tokens of a reply.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    /// Seed of the sampling, where the server supports one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Texts that end the reply.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stop: Vec<String>,
    /// Further fields, written as they are.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl ChatRequest {
    /// A request with the server's own settings.
    pub fn new(model: impl Into<String>, messages: Vec<Message>) -> Self {
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

/// How many tokens a reply took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// Tokens of the prompt, images included.
    pub prompt_tokens: u64,
    /// Tokens of the reply.
    pub completion_tokens: u64,
}

/// What the model said.
#[derive(Debug, Clone, PartialEq)]
pub struct ChatReply {
    /// The text of the first choice; empty where the model said nothing.
    pub text: String,
    /// Why the reply ended: `stop`, `length`, `content_filter` …
    pub finish_reason: Option<String>,
    /// The words in which the model refuses to answer, where the server keeps them apart.
    pub refusal: Option<String>,
    /// Token counts, where the server gives them.
    pub usage: Option<Usage>,
    /// How often the request was sent.
    pub attempts: u32,
    /// From the first attempt to the reply, waits included.
    pub elapsed: Duration,
}

/// How a reply ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The model said all that it wanted to say.
    Whole,
    /// It was cut off at the limit of tokens.
    Truncated,
    /// The model, or a filter behind it, refused to answer.
    Refused,
}

impl ChatReply {
    /// How the reply ended, by the server's word.
    pub fn ending(&self) -> Ending {
        match self.finish_reason.as_deref() {
            Some("content_filter") => Ending::Refused,
            _ if self.refusal.is_some() => Ending::Refused,
            Some("length") => Ending::Truncated,
            _ => Ending::Whole,
        }
    }
}

/// The part of a reply's JSON that matters.
pub(crate) struct Parsed {
    pub(crate) text: String,
    pub(crate) finish_reason: Option<String>,
    pub(crate) refusal: Option<String>,
    pub(crate) usage: Option<Usage>,
}

/// Reads a reply's body.
///
/// # Errors
/// A line that says why it is not a chat completion.
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
        message: Said,
        #[serde(default)]
        finish_reason: Option<String>,
    }
    #[derive(Deserialize)]
    struct Said {
        #[serde(default)]
        content: Option<SaidContent>,
        #[serde(default)]
        refusal: Option<String>,
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum SaidContent {
        Text(String),
        Parts(Vec<SaidPart>),
    }
    #[derive(Deserialize)]
    struct SaidPart {
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
        Some(SaidContent::Text(text)) => text,
        Some(SaidContent::Parts(parts)) => parts.into_iter().map(|part| part.text).collect(),
        None => String::new(),
    };
    let refusal = choice.message.refusal.filter(|words| !words.trim().is_empty());
    Ok(Parsed { text, finish_reason: choice.finish_reason, refusal, usage: body.usage })
}

/// What a server's error means beyond its status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// A content filter stopped the request.
    Refused,
    /// The account has nothing left to spend.
    OutOfQuota,
    /// What the status says.
    Status,
}

/// Reads the codes by which OpenAI, Azure and DashScope tell filters and quotas from other errors.
pub(crate) fn error_meaning(body: &Value) -> Meaning {
    let inner = body.get("error").unwrap_or(body);
    let places =
        [inner.get("code"), inner.get("type"), inner.get("innererror").and_then(|e| e.get("code"))];
    let codes = places.into_iter().flatten().filter_map(Value::as_str);
    let plain = |code: &str| code.replace(['_', '-', ' '], "").to_lowercase();
    for code in codes.map(plain) {
        match code.as_str() {
            "contentfilter"
            | "contentpolicyviolation"
            | "datainspectionfailed"
            | "responsibleaipolicyviolation"
            | "moderationblocked" => return Meaning::Refused,
            "insufficientquota" | "billinghardlimitreached" | "arrearage" => {
                return Meaning::OutOfQuota;
            }
            _ => {}
        }
    }
    Meaning::Status
}

/// The words in a server's error, which comes in several shapes: `{"message": …}`, `{"error": …}`,
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
    fn text_alone_is_written_as_a_string() {
        let request = ChatRequest::new("m", vec![Message::system("s"), Message::user("u")]);
        assert_eq!(
            serde_json::to_value(&request).unwrap(),
            json!({"model": "m", "messages": [
                {"role": "system", "content": "s"}, {"role": "user", "content": "u"}]})
        );
    }

    #[test]
    fn images_are_written_as_parts_with_data_urls() {
        let message = Message {
            role: Role::User,
            content: vec![Content::jpeg(&[0xff, 0xd8]), Content::Text("what?".into())],
        };
        assert_eq!(
            serde_json::to_value(&message).unwrap(),
            json!({"role": "user", "content": [
                {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,/9g="}},
                {"type": "text", "text": "what?"}]})
        );
    }

    #[test]
    fn settings_are_written_where_they_are_given() {
        let mut request = ChatRequest {
            temperature: Some(0.1),
            max_tokens: Some(10),
            ..ChatRequest::new("m", vec![])
        };
        request.extra.insert("top_k".into(), json!(1));
        assert_eq!(
            serde_json::to_value(&request).unwrap(),
            json!({"model": "m", "messages": [], "temperature": 0.1, "max_tokens": 10, "top_k": 1})
        );
    }

    #[test]
    fn a_reply_is_read_with_its_usage() {
        let body = json!({"choices": [{"message": {"role": "assistant", "content": "hi"},
            "finish_reason": "stop"}], "usage": {"prompt_tokens": 3, "completion_tokens": 1,
            "total_tokens": 4}});
        let parsed = parse(body.to_string().as_bytes()).unwrap();
        assert_eq!(parsed.text, "hi");
        assert_eq!(parsed.finish_reason.as_deref(), Some("stop"));
        assert_eq!(parsed.usage, Some(Usage { prompt_tokens: 3, completion_tokens: 1 }));
    }

    #[test]
    fn a_reply_in_parts_is_joined_and_silence_is_empty() {
        let parts =
            br#"{"choices":[{"message":{"content":[{"type":"text","text":"a"},{"text":"b"}]}}]}"#;
        assert_eq!(parse(parts).unwrap().text, "ab");
        assert_eq!(parse(br#"{"choices":[{"message":{"content":null}}]}"#).unwrap().text, "");
    }

    fn reply(message: Value, finish_reason: &str) -> ChatReply {
        let body = json!({"choices": [{"message": message, "finish_reason": finish_reason}]});
        let Parsed { text, finish_reason, refusal, usage } =
            parse(body.to_string().as_bytes()).unwrap();
        ChatReply { text, finish_reason, refusal, usage, attempts: 1, elapsed: Duration::ZERO }
    }

    #[test]
    fn refusals_and_cut_off_replies_are_told_from_whole_ones() {
        let said = json!({"content": "a lamp", "refusal": null});
        assert_eq!(reply(said.clone(), "stop").ending(), Ending::Whole);
        assert_eq!(reply(said.clone(), "length").ending(), Ending::Truncated);
        assert_eq!(reply(said, "content_filter").ending(), Ending::Refused);
        let refused = json!({"content": null, "refusal": "I cannot help with that."});
        assert_eq!(reply(refused, "stop").ending(), Ending::Refused);
    }

    #[test]
    fn filters_and_quotas_are_told_from_other_errors() {
        for (body, meaning) in [
            (json!({"error": {"code": "content_policy_violation"}}), Meaning::Refused),
            (json!({"error": {"code": "content_filter", "status": 400}}), Meaning::Refused),
            (json!({"error": {"code": "data_inspection_failed"}}), Meaning::Refused),
            (json!({"code": "DataInspectionFailed", "message": "no"}), Meaning::Refused),
            (json!({"error": {"code": null, "type": "insufficient_quota"}}), Meaning::OutOfQuota),
            (json!({"error": {"code": 400, "type": "BadRequestError"}}), Meaning::Status),
            (json!("no"), Meaning::Status),
        ] {
            assert_eq!(error_meaning(&body), meaning, "{body}");
        }
    }

    #[test]
    fn what_is_not_a_chat_completion_says_why() {
        let why = |body: &str| parse(body.as_bytes()).err().unwrap();
        assert!(why("{\"choices\": [").contains("EOF"));
        assert_eq!(why("{}"), "it has no `choices`");
        assert_eq!(why(r#"{"error":{"message":"out of memory","code":500}}"#), "out of memory");
    }

    #[test]
    fn the_words_of_an_error_are_found_in_every_shape() {
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

//! A parsed template and its renderings.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use serde_json::Value as Json;

use super::ast::{Block, Body};
use super::fault::{Result, TemplateFault, fail};
use super::functions::FUNCTIONS;
use super::limits::{MAX_SOURCE_BYTES, Meter, STACK_BYTES, VALUE_BYTES};
use super::parser::parse;
use super::rendering::Rendering;
use super::repr::Out;
use super::statements::Frame;
use super::value::{Callable, Scope, Value};

/// A parsed template.
pub struct Template {
    body: Body,
    blocks: HashMap<Arc<str>, Arc<Block>>,
}

impl std::fmt::Debug for Template {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Template").field("statements", &self.body.len()).finish_non_exhaustive()
    }
}

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    /// It is too long, nests too deeply, or has a syntax error.
    pub fn parse(source: &str) -> Result<Self> {
        if source.len() > MAX_SOURCE_BYTES {
            let bytes = source.len();
            return fail(format!("the template has {bytes} bytes, more than {MAX_SOURCE_BYTES}"));
        }
        let parsed = with_stack(|| parse(source))?;
        Ok(Self { body: parsed.body, blocks: parsed.blocks })
    }

    /// Renders the template with variables, of which the first of a name counts, for a conversation of `messages`
    /// messages.
    ///
    /// # Errors
    /// The template fails or exceeds a limit.
    pub fn render(&self, variables: &[(&str, &Json)], messages: usize) -> Result<String> {
        with_stack(|| self.rendered(variables, messages))
    }

    fn rendered(&self, variables: &[(&str, &Json)], messages: usize) -> Result<String> {
        let bytes = variables.iter().map(|(_, value)| json_bytes(value)).sum();
        let meter = Meter::new(messages, bytes);
        let context = Rc::new(Scope::default());
        for name in FUNCTIONS {
            context.set(name.into(), Value::Callable(Rc::new(Callable::Function(name))));
        }
        context.set("self".into(), Value::Callable(Rc::new(Callable::Template)));
        for (name, value) in variables.iter().rev() {
            context.set((*name).into(), Value::from_json(&meter, value)?);
        }
        let (root, blocks) = (Scope::within(&context), self.blocks.clone());
        let (namespaces, captured) = (RefCell::default(), RefCell::default());
        let rendering = Rendering { meter, blocks, root, namespaces, captured };
        let frame = Frame { scope: rendering.root.clone(), autoescape: false };
        let mut out = Out::new(&rendering.meter);
        rendering.run(&self.body, &frame, &mut out)?;
        Ok(out.text)
    }
}

/// The bytes of JSON as values.
fn json_bytes(json: &Json) -> usize {
    VALUE_BYTES
        + match json {
            Json::String(text) => text.len(),
            Json::Array(items) => items.iter().map(json_bytes).sum(),
            Json::Object(entries) => {
                entries.iter().map(|(key, value)| VALUE_BYTES + key.len() + json_bytes(value)).sum()
            }
            _ => 0,
        }
}

/// Runs with the stack that the limits of nesting and recursion need.
fn with_stack<T: Send>(run: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, run);
        let thread = thread
            .map_err(|error| TemplateFault::new(format!("cannot start a thread: {error}")))?;
        thread.join().unwrap_or_else(|_| fail("the template engine failed"))
    })
}

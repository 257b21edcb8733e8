//! Jinja as Python's jinja2 3.1 renders it in the environment of `transformers`: a sandbox without mutation, trimmed
//! blocks, loop controls, `{% generation %}`, and `tojson` with the options of `json.dumps`.
//!
//! Values are Python's: integers and floats are apart, text is indexed by character, and `str()` and `repr()` are
//! Python's. What is not supported is an error with its name. A template is not trusted: nesting, steps, memory and output of
//! a rendering are bounded.
//!
//! ```
//! use embodied_r_jinja::Template;
//! use serde_json::json;
//!
//! let template = Template::parse("{% for m in messages %}[{{ m.role | upper }}] {{ m.content }}\n{% endfor %}")?;
//! let messages = json!([{"role": "user", "content": "Where?"}]);
//! assert_eq!(template.render(&[("messages", &messages)], 1)?, "[USER] Where?\n");
//! # Ok::<(), embodied_r_jinja::TemplateFault>(())
//! ```

mod arguments;
mod ast;
mod calls;
mod checks;
mod compare;
mod constructors;
mod conversions;
mod escapes;
mod expressions;
mod fault;
mod filters;
mod format;
mod functions;
mod json;
mod lexer;
mod limits;
mod literals;
mod lookup;
mod methods;
mod operators;
mod parser;
mod printf;
mod rendering;
mod repr;
mod statements;
mod template;
#[cfg(test)]
mod tests;
mod text;
mod value;

pub use fault::TemplateFault;
pub use template::Template;

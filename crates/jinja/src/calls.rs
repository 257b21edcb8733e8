//! Calls of functions, methods and macros.

use std::collections::VecDeque;
use std::rc::Rc;

use super::arguments::Given;
use super::fault::{Result, fail};
use super::functions::call_function;
use super::methods::call_method;
use super::rendering::Rendering;
use super::repr::Out;
use super::statements::Frame;
use super::value::{Callable, Key, Macro, Missing, Scope, Value};

impl Rendering {
    /// `callee(…)`.
    pub(super) fn call(&self, callee: &Value, given: Given, frame: &Frame) -> Result<Value> {
        match callee {
            Value::Callable(callable) => match &**callable {
                Callable::Function(name) => call_function(self, name, given),
                Callable::Method(receiver, name) => call_method(self, receiver, name, given),
                Callable::Macro(of) => self.call_macro(of, given, frame.autoescape),
                Callable::Block(name) => {
                    given.in_order::<0>(name, 0)?;
                    let Some(block) = self.blocks.get(name) else {
                        return fail(format!("the block `{name}` does not exist"));
                    };
                    let mut out = Out::new(&self.meter);
                    let root = Frame { scope: self.root.clone(), ..frame.clone() };
                    self.block(block, &root, &mut out)?;
                    let text = out.text.into();
                    Ok(if frame.autoescape { Value::Markup(text) } else { Value::Str(text) })
                }
                Callable::Template => fail("`self` cannot be called"),
            },
            Value::Loop(of) => {
                let [items] = given.bind("loop", ["iterable"])?;
                let items = super::arguments::required(items, "loop", "iterable")?;
                self.call_loop(of, &items, frame.autoescape)
            }
            Value::Joiner(of) => {
                given.in_order::<0>("joiner", 0)?;
                match of.is_used.replace(true) {
                    true => Ok(of.separator.clone()),
                    false => Ok(Value::text("")),
                }
            }
            Value::Undefined(why) => fail(why.to_string()),
            other => fail(format!("a `{}` cannot be called", other.class())),
        }
    }

    /// Renders a macro with its arguments.
    fn call_macro(&self, of: &Rc<Macro>, given: Given, autoescape: bool) -> Result<Value> {
        let (code, meter) = (&of.code, &self.meter);
        let name = code.name.as_deref().unwrap_or("caller");
        let mut positional = VecDeque::from(given.positional);
        let mut keywords = given.keywords;
        let take = |keywords: &mut Vec<_>, name: &str| {
            let at = keywords
                .iter()
                .position(|(keyword, _): &(std::sync::Arc<str>, Value)| **keyword == *name)?;
            Some(keywords.remove(at).1)
        };
        let frame = Frame { scope: Scope::within(&of.scope), autoescape };
        let has = |name: &str| code.parameters.iter().any(|(parameter, _)| **parameter == *name);
        let mut defaults = Vec::new();
        for (parameter, default) in &code.parameters {
            let given = positional.pop_front().or_else(|| take(&mut keywords, parameter));
            let missing = Missing::Text("a parameter was not provided");
            let value = given.unwrap_or_else(|| {
                defaults.extend(default.as_ref().map(|default| (parameter, default)));
                Value::undefined(missing)
            });
            frame.scope.set(parameter.clone(), value);
        }
        if code.uses.caller && !has("caller") {
            let missing = || Value::undefined(Missing::Text("no caller is defined"));
            let caller = take(&mut keywords, "caller").filter(|of| !matches!(of, Value::None));
            frame.scope.set("caller".into(), caller.unwrap_or_else(missing));
        }
        if code.uses.kwargs && !has("kwargs") {
            let entries = keywords.drain(..).map(|(name, value)| (Key::text(name), value));
            frame.scope.set("kwargs".into(), Value::dict(meter, entries.collect())?);
        } else if let Some((keyword, _)) = keywords.first() {
            return fail(format!("the macro `{name}` has no parameter `{keyword}`"));
        }
        if code.uses.varargs && !has("varargs") {
            let rest = std::mem::take(&mut positional);
            frame.scope.set("varargs".into(), Value::tuple(meter, rest.into())?);
        } else if !positional.is_empty() {
            let most = code.parameters.len();
            return fail(format!("the macro `{name}` takes at most {most} arguments"));
        }
        // Defaults see the parameters before them.
        for (parameter, default) in defaults {
            let value = self.eval(default, &frame)?;
            frame.scope.set(parameter.clone(), value);
        }
        let mut out = Out::new(meter);
        self.run(&code.body, &frame, &mut out)?;
        let text = out.text.into();
        Ok(if autoescape { Value::Markup(text) } else { Value::Str(text) })
    }
}

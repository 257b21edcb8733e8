//! Renders statements.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use super::ast::{self, Body, Expr, Kind, Statement, Target};
use super::fault::{Result, fail};
use super::format::escape;
use super::functions::check_name;
use super::rendering::Rendering;
use super::repr::{Out, print, to_text};
use super::value::{Callable, Items, Key, Loop, Macro, Missing, Scope, Value};

/// Where statements are rendered.
#[derive(Clone)]
pub(super) struct Frame {
    pub(super) scope: Rc<Scope>,
    /// Whether values are escaped for HTML.
    pub(super) autoescape: bool,
}

impl Frame {
    fn inner(&self) -> Self {
        Self { scope: Scope::within(&self.scope), autoescape: self.autoescape }
    }
}

/// What follows a statement.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Statement,
    Break,
    Continue,
}

impl Rendering {
    /// Renders statements, up to a `break` or `continue`.
    pub(super) fn run(&self, body: &Body, frame: &Frame, out: &mut Out<'_>) -> Result<Next> {
        for (line, statement) in body {
            self.meter.steps(1)?;
            let next = self.meter.deeper(|| self.statement(statement, frame, out));
            match next.map_err(|fault| fault.at(*line))? {
                Next::Statement => {}
                other => return Ok(other),
            }
        }
        Ok(Next::Statement)
    }

    /// The text of a body in a scope of its own.
    fn text_of(&self, body: &Body, frame: &Frame) -> Result<Value> {
        let mut out = Out::new(&self.meter);
        self.run(body, &frame.inner(), &mut out)?;
        let text = out.text.into();
        Ok(if frame.autoescape { Value::Markup(text) } else { Value::Str(text) })
    }

    fn statement(&self, statement: &Statement, frame: &Frame, out: &mut Out<'_>) -> Result<Next> {
        match statement {
            Statement::Text(text) => out.push(text)?,
            Statement::Output(value) => self.output(value, frame, out)?,
            Statement::Print(values) => {
                values.iter().try_for_each(|value| self.output(value, frame, out))?;
            }
            Statement::For(code) => {
                let items = self.eval(&code.items, frame)?;
                self.for_loop(code, &items, frame, 0, out)?;
            }
            Statement::If(branches, otherwise) => {
                for (test, body) in branches {
                    if self.eval(test, frame)?.is_true() {
                        return self.run(body, frame, out);
                    }
                }
                return self.run(otherwise, frame, out);
            }
            Statement::With(variables, body) => {
                let inner = frame.inner();
                for (target, value) in variables {
                    let value = self.eval(value, frame)?;
                    self.assign(target, value, &inner)?;
                }
                return self.run(body, &inner, out);
            }
            Statement::Set(target, value) => {
                let value = self.eval(value, frame)?;
                self.assign(target, value, frame)?;
            }
            Statement::SetBlock(target, filter, body) => {
                let text = self.text_of(body, frame)?;
                let value = match filter {
                    Some(filter) => self.filtered(filter, text, frame)?,
                    None => text,
                };
                self.assign(target, value, frame)?;
            }
            Statement::AutoEscape(enabled, body) => {
                let autoescape = self.eval(enabled, frame)?.is_true();
                return self.run(body, &Frame { autoescape, ..frame.inner() }, out);
            }
            Statement::Filter(filter, body) => {
                let text = self.text_of(body, frame)?;
                let value = self.filtered(filter, text, frame)?;
                self.print(&value, frame, out)?;
            }
            Statement::Block(block) => self.block(block, frame, out)?,
            Statement::Macro(code) => {
                let value = self.macro_of(code, frame);
                frame.scope.set(code.name.clone().unwrap_or_default(), value);
            }
            Statement::Call(call, code) => {
                let Kind::Call(callee, arguments) = &call.kind else {
                    return fail("`call` needs a call");
                };
                let callee = self.eval(callee, frame)?;
                let mut given = self.arguments(arguments, frame)?;
                given.keywords.push(("caller".into(), self.macro_of(code, frame)));
                let value = self.call(&callee, given, frame)?;
                self.print(&value, frame, out)?;
            }
            Statement::Generation(body) => {
                let text = self.text_of(body, frame)?;
                self.print(&text, frame, out)?;
            }
            Statement::Unset(names) => {
                for name in names {
                    frame.scope.set(name.clone(), Value::undefined(Missing::Name(name.clone())));
                }
            }
            Statement::Break => return Ok(Next::Break),
            Statement::Continue => return Ok(Next::Continue),
            Statement::Load(name) => {
                return fail(format!("`{name}`: a chat template cannot load other templates"));
            }
        }
        Ok(Next::Statement)
    }

    fn output(&self, value: &Expr, frame: &Frame, out: &mut Out<'_>) -> Result<()> {
        let value = self.eval(value, frame)?;
        self.print(&value, frame, out)
    }

    fn print(&self, value: &Value, frame: &Frame, out: &mut Out<'_>) -> Result<()> {
        match frame.autoescape {
            true => out.push(&escape(self, value)?),
            false => print(self, out, value),
        }
    }

    fn macro_of(&self, code: &Arc<ast::Macro>, frame: &Frame) -> Value {
        let mut captured = self.captured.borrow_mut();
        if !captured.last().is_some_and(|last| Rc::ptr_eq(last, &frame.scope)) {
            captured.push(frame.scope.clone());
        }
        let of = Macro { code: code.clone(), scope: frame.scope.clone() };
        Value::Callable(Rc::new(Callable::Macro(Rc::new(of))))
    }

    /// Renders a block, which sees the variables around it only if it is scoped.
    pub(super) fn block(&self, block: &ast::Block, frame: &Frame, out: &mut Out<'_>) -> Result<()> {
        let around = if block.scoped { &frame.scope } else { &self.root };
        let inner = Frame { scope: Scope::within(around), autoescape: frame.autoescape };
        self.run(&block.body, &inner, out)?;
        Ok(())
    }

    /// Renders a loop over items, within `level` recursive loops.
    pub(super) fn for_loop(
        &self,
        code: &Arc<ast::For>,
        items: &Value,
        frame: &Frame,
        level: usize,
        out: &mut Out<'_>,
    ) -> Result<()> {
        let mut items = items.items(&self.meter)?;
        if let Some(condition) = &code.condition {
            let mut kept = Vec::with_capacity(items.len());
            for item in items {
                let inner = frame.inner();
                self.assign(&code.target, item.clone(), &inner)?;
                if self.eval(condition, &inner)?.is_true() {
                    kept.push(item);
                }
            }
            items = kept;
        }
        if items.is_empty() {
            self.run(&code.otherwise, &frame.inner(), out)?;
            return Ok(());
        }
        let this = Rc::new(Loop {
            items: Items::new(&self.meter, items)?,
            index: Cell::new(0),
            level,
            changed: RefCell::default(),
            recursive: code.recursive.then(|| (code.clone(), frame.scope.clone())),
        });
        for (index, item) in this.items.values.iter().enumerate() {
            self.meter.steps(1)?;
            this.index.set(index);
            let inner = frame.inner();
            inner.scope.set("loop".into(), Value::Loop(this.clone()));
            self.assign(&code.target, item.clone(), &inner)?;
            if self.run(&code.body, &inner, out)? == Next::Break {
                break;
            }
        }
        Ok(())
    }

    /// Assigns to names, attributes of namespaces, or several of them.
    pub(super) fn assign(&self, target: &Target, value: Value, frame: &Frame) -> Result<()> {
        match target {
            Target::Name(name) => frame.scope.set(name.clone(), value),
            Target::Attribute(name, attribute) => {
                let Some(Value::Namespace(index)) = frame.scope.get(name) else {
                    return fail(format!("`{name}` is no namespace, its attribute cannot be set"));
                };
                check_name(attribute)?;
                // A namespace may have itself; others cannot nest more deeply than lists may.
                self.meter.measure(std::iter::once(&value))?;
                let mut namespaces = self.namespaces.borrow_mut();
                if let Some(entries) = namespaces.get_mut(index) {
                    entries.insert(Key::text(attribute.clone()), value);
                }
            }
            Target::Tuple(targets) => {
                let values = value.items(&self.meter)?;
                if values.len() != targets.len() {
                    let (found, expected) = (values.len(), targets.len());
                    return fail(format!("{found} values cannot be assigned to {expected} names"));
                }
                for (target, value) in targets.iter().zip(values) {
                    self.assign(target, value, frame)?;
                }
            }
        }
        Ok(())
    }

    /// Calls a recursive loop.
    pub(super) fn call_loop(&self, of: &Loop, items: &Value, autoescape: bool) -> Result<Value> {
        let Some((code, scope)) = &of.recursive else {
            return fail("`loop` can be called only in a loop that is `recursive`");
        };
        let frame = Frame { scope: scope.clone(), autoescape };
        let mut out = Out::new(&self.meter);
        self.for_loop(code, items, &frame, of.level + 1, &mut out)?;
        let text = out.text.into();
        Ok(if autoescape { Value::Markup(text) } else { Value::Str(text) })
    }

    /// The value of `{% filter … %}` or `{% set … | … %}` of a text.
    fn filtered(&self, filter: &Expr, text: Value, frame: &Frame) -> Result<Value> {
        let Kind::Filter(operand, name, arguments) = &filter.kind else {
            return self.eval(filter, frame);
        };
        let value = match operand {
            Some(operand) => self.meter.deeper(|| self.filtered(operand, text, frame))?,
            None => text,
        };
        let given = self.arguments(arguments, frame)?;
        self.filter(name, value, given, frame.autoescape)
    }

    /// The text of a value as Python's `str()` gives it.
    pub(super) fn str(&self, value: &Value) -> Result<String> {
        to_text(self, value)
    }
}

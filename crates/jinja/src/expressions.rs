//! Evaluates expressions.

use super::arguments::Given;
use super::ast::{Arguments, Condition, Expr, Kind, Literal, Math};
use super::fault::{Result, TemplateFault, fail};
use super::format::escape;
use super::lookup::{attribute, item, slice};
use super::operators::{compare, math, signed};
use super::rendering::Rendering;
use super::repr::{Out, print};
use super::statements::Frame;
use super::value::{Key, Missing, Value};

impl Rendering {
    /// The value of an expression.
    pub(super) fn eval(&self, expr: &Expr, frame: &Frame) -> Result<Value> {
        self.meter.steps(1)?;
        let value = self.meter.deeper(|| self.eval_kind(&expr.kind, frame));
        value.map_err(|fault: TemplateFault| fault.at(expr.line))
    }

    fn eval_all(&self, exprs: &[Expr], frame: &Frame) -> Result<Vec<Value>> {
        exprs.iter().map(|expr| self.eval(expr, frame)).collect()
    }

    fn eval_kind(&self, kind: &Kind, frame: &Frame) -> Result<Value> {
        match kind {
            Kind::Literal(literal) => Ok(match literal {
                Literal::None => Value::None,
                Literal::Bool(value) => Value::Bool(*value),
                Literal::Int(whole) => Value::Int(*whole),
                Literal::Float(float) => Value::Float(*float),
                Literal::Text(text) => Value::Str(text.clone()),
            }),
            Kind::Name(name) => Ok(frame
                .scope
                .get(name)
                .unwrap_or_else(|| Value::undefined(Missing::Name(name.clone())))),
            Kind::List(items) => Value::list(&self.meter, self.eval_all(items, frame)?),
            Kind::Tuple(items) => Value::tuple(&self.meter, self.eval_all(items, frame)?),
            Kind::Dict(entries) => {
                let entries = entries.iter().map(|(key, value)| {
                    let key = self.eval(key, frame)?;
                    Ok((Key::new(&self.meter, key)?, self.eval(value, frame)?))
                });
                Value::dict(&self.meter, entries.collect::<Result<_>>()?)
            }
            Kind::Not(operand) => Ok(Value::Bool(!self.eval(operand, frame)?.is_true())),
            Kind::Negative(operand) => signed(&self.eval(operand, frame)?, true),
            Kind::Positive(operand) => signed(&self.eval(operand, frame)?, false),
            Kind::And(operands) => self.first(operands, frame, false),
            Kind::Or(operands) => self.first(operands, frame, true),
            Kind::Concat(operands) => self.concatenated(operands, frame),
            Kind::Math(first, operands) => self.math(first, operands, frame),
            Kind::Compare(first, operands) => {
                let mut left = self.eval(first, frame)?;
                for (op, right) in operands {
                    let right = self.eval(right, frame)?;
                    if !compare(self, *op, &left, &right)? {
                        return Ok(Value::Bool(false));
                    }
                    left = right;
                }
                Ok(Value::Bool(true))
            }
            Kind::Condition(condition) => self.condition(condition, frame),
            Kind::Attribute(of, name) => attribute(self, &self.eval(of, frame)?, name),
            Kind::Item(of, key) => {
                let of = self.eval(of, frame)?;
                item(self, &of, &self.eval(key, frame)?)
            }
            Kind::Slice(of, bounds) => {
                let of = self.eval(of, frame)?;
                let bound = |bound: &Option<Expr>| match bound {
                    Some(bound) => self.eval(bound, frame),
                    None => Ok(Value::None),
                };
                let bounds = [bound(&bounds[0])?, bound(&bounds[1])?, bound(&bounds[2])?];
                slice(&self.meter, &of, &bounds)
            }
            Kind::Call(callee, arguments) => {
                let callee = self.eval(callee, frame)?;
                let given = self.arguments(arguments, frame)?;
                self.call(&callee, given, frame)
            }
            Kind::Filter(operand, name, arguments) => {
                let Some(operand) = operand else { return fail("a filter has no operand") };
                let value = self.eval(operand, frame)?;
                let given = self.arguments(arguments, frame)?;
                self.filter(name, value, given, frame.autoescape)
            }
            Kind::Test(operand, name, arguments) => {
                let value = self.eval(operand, frame)?;
                let given = self.arguments(arguments, frame)?;
                self.test(name, &value, given).map(Value::Bool)
            }
        }
    }

    /// The first operand that is true or not, or the last.
    fn first(&self, operands: &[Expr], frame: &Frame, wanted: bool) -> Result<Value> {
        let mut value = Value::None;
        for operand in operands {
            value = self.eval(operand, frame)?;
            if value.is_true() == wanted {
                break;
            }
        }
        Ok(value)
    }

    fn condition(&self, condition: &Condition, frame: &Frame) -> Result<Value> {
        if self.eval(&condition.test, frame)?.is_true() {
            return self.eval(&condition.value, frame);
        }
        match &condition.otherwise {
            Some(otherwise) => self.eval(otherwise, frame),
            None => Ok(Value::undefined(Missing::Text(
                "the condition is false and has no `else`, its value is undefined",
            ))),
        }
    }

    fn concatenated(&self, operands: &[Expr], frame: &Frame) -> Result<Value> {
        let values = self.eval_all(operands, frame)?;
        let is_markup =
            frame.autoescape && values.iter().any(|value| matches!(value, Value::Markup(_)));
        let mut out = Out::new(&self.meter);
        for value in &values {
            match is_markup {
                true => out.push(&escape(self, value)?)?,
                false => print(self, &mut out, value)?,
            }
        }
        let text = out.text.into();
        Ok(if is_markup { Value::Markup(text) } else { Value::Str(text) })
    }

    /// Operators from left to right; the sum of many strings is built once.
    fn math(&self, first: &Expr, operands: &[(Math, Expr)], frame: &Frame) -> Result<Value> {
        let mut value = self.eval(first, frame)?;
        let mut sum: Option<Out<'_>> = None;
        for (op, right) in operands {
            let right = self.eval(right, frame)?;
            if let (Math::Add, Value::Str(left), Value::Str(text)) = (*op, &value, &right) {
                let out = match &mut sum {
                    Some(out) => out,
                    none => {
                        let mut out = Out::new(&self.meter);
                        out.push(left)?;
                        none.insert(out)
                    }
                };
                out.push(text)?;
                continue;
            }
            if let Some(out) = sum.take() {
                value = Value::Str(out.text.into());
            }
            value = math(self, *op, &value, &right)?;
        }
        Ok(match sum {
            Some(out) => Value::Str(out.text.into()),
            None => value,
        })
    }

    /// The values of arguments.
    pub(super) fn arguments(&self, arguments: &Arguments, frame: &Frame) -> Result<Given> {
        let mut positional = self.eval_all(&arguments.positional, frame)?;
        let keywords = arguments.keywords.iter();
        let keywords = keywords.map(|(name, value)| Ok((name.clone(), self.eval(value, frame)?)));
        let mut keywords = keywords.collect::<Result<Vec<_>>>()?;
        if let Some(list) = &arguments.list {
            positional.extend(self.eval(list, frame)?.items(&self.meter)?);
        }
        if let Some(dict) = &arguments.dict {
            let Value::Dict(dict) = self.eval(dict, frame)? else {
                return fail("`**` in a call needs a map");
            };
            for (name, value) in &dict.entries {
                match name.value() {
                    Value::Str(name) | Value::Markup(name) => {
                        keywords.push((name.clone(), value.clone()));
                    }
                    _ => return fail("the keys of `**` in a call are strings"),
                }
            }
        }
        for (index, (name, _)) in keywords.iter().enumerate() {
            if keywords[..index].iter().any(|(other, _)| other == name) {
                return fail(format!("the argument `{name}` is given twice"));
            }
        }
        Ok(Given { positional, keywords })
    }
}

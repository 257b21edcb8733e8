//! Parses the expressions of a template, with jinja2's precedence.

use std::sync::Arc;

use super::super::ast::{Arguments, Comparison, Condition, Expr, Kind, Literal, Math};
use super::super::checks::{is_test, unknown_test};
use super::super::fault::{Result, fail};
use super::super::filters::{is_filter, unknown_filter};
use super::super::lexer::Token;
use super::super::limits::MAX_NESTING;
use super::Parser;

impl Parser {
    /// An expression, or several with commas as a tuple.
    pub(super) fn tuple(&mut self, with_condition: bool) -> Result<Expr> {
        self.tuple_until(with_condition, &[])
    }

    /// As [`Self::tuple`]; after a comma, one of the names ends it.
    pub(super) fn tuple_until(&mut self, with_condition: bool, ends: &[&str]) -> Result<Expr> {
        let line = self.line();
        match self.tuple_items(with_condition, ends)? {
            (mut items, false) => match items.pop() {
                Some(item) => Ok(item),
                None => Err(self.unexpected("an expression")),
            },
            (items, true) => Ok(Expr { line, kind: Kind::Tuple(items) }),
        }
    }

    /// Expressions between commas, and whether there was a comma.
    fn tuple_items(&mut self, with_condition: bool, ends: &[&str]) -> Result<(Vec<Expr>, bool)> {
        let mut items = Vec::new();
        let mut is_tuple = false;
        loop {
            let is_end = match self.token() {
                Token::BlockEnd | Token::OutputEnd => true,
                token => token.is_operator(")") || ends.iter().any(|end| token.is_name(end)),
            };
            if is_end {
                break;
            }
            items.push(match with_condition {
                true => self.expression()?,
                false => self.deeper(Self::or)?,
            });
            if !self.skip(",") {
                break;
            }
            is_tuple = true;
        }
        Ok((items, is_tuple))
    }

    pub(super) fn expression(&mut self) -> Result<Expr> {
        self.deeper(Self::conditional)
    }

    fn conditional(&mut self) -> Result<Expr> {
        let line = self.line();
        let known = self.unknown.len();
        let mut value = self.or()?;
        let mut conditions = 0;
        while self.skip_name("if") {
            conditions += 1;
            if conditions > MAX_NESTING {
                return fail(format!("more than {MAX_NESTING} conditions follow each other"));
            }
            let test = self.or()?;
            let otherwise = match self.skip_name("else") {
                true => Some(self.expression()?),
                false => None,
            };
            // As a branch: what does not exist in it is an error only when it is rendered.
            self.unknown.truncate(known);
            let condition = Box::new(Condition { value, test, otherwise });
            value = Expr { line, kind: Kind::Condition(condition) };
        }
        Ok(value)
    }

    fn or(&mut self) -> Result<Expr> {
        self.joined("or", Self::and, Kind::Or)
    }

    fn and(&mut self) -> Result<Expr> {
        self.joined("and", Self::not, Kind::And)
    }

    /// Operands with a name between them.
    fn joined(
        &mut self,
        name: &str,
        operand: fn(&mut Self) -> Result<Expr>,
        kind: fn(Vec<Expr>) -> Kind,
    ) -> Result<Expr> {
        let line = self.line();
        let first = operand(self)?;
        if !self.token().is_name(name) {
            return Ok(first);
        }
        let mut operands = vec![first];
        while self.skip_name(name) {
            operands.push(operand(self)?);
        }
        Ok(Expr { line, kind: kind(operands) })
    }

    fn not(&mut self) -> Result<Expr> {
        let line = self.line();
        match self.skip_name("not") {
            true => {
                let operand = self.deeper(Self::not)?;
                Ok(Expr { line, kind: Kind::Not(Box::new(operand)) })
            }
            false => self.comparison(),
        }
    }

    fn comparison(&mut self) -> Result<Expr> {
        let line = self.line();
        let first = self.sum()?;
        let mut operands = Vec::new();
        loop {
            let op = match self.token() {
                Token::Operator("==") => Comparison::Equal,
                Token::Operator("!=") => Comparison::NotEqual,
                Token::Operator("<") => Comparison::Less,
                Token::Operator("<=") => Comparison::LessOrEqual,
                Token::Operator(">") => Comparison::Greater,
                Token::Operator(">=") => Comparison::GreaterOrEqual,
                token if token.is_name("in") => Comparison::In,
                token if token.is_name("not") && self.following().is_name("in") => {
                    self.advance();
                    Comparison::NotIn
                }
                _ => break,
            };
            self.advance();
            operands.push((op, self.sum()?));
        }
        Ok(match operands.is_empty() {
            true => first,
            false => Expr { line, kind: Kind::Compare(Box::new(first), operands) },
        })
    }

    fn sum(&mut self) -> Result<Expr> {
        self.math(Self::concatenation, &[("+", Math::Add), ("-", Math::Subtract)])
    }

    fn concatenation(&mut self) -> Result<Expr> {
        let line = self.line();
        let first = self.product()?;
        if !self.token().is_operator("~") {
            return Ok(first);
        }
        let mut operands = vec![first];
        while self.skip("~") {
            operands.push(self.product()?);
        }
        Ok(Expr { line, kind: Kind::Concat(operands) })
    }

    fn product(&mut self) -> Result<Expr> {
        let operators = [
            ("*", Math::Multiply),
            ("/", Math::Divide),
            ("//", Math::FloorDivide),
            ("%", Math::Modulo),
        ];
        self.math(Self::power, &operators)
    }

    fn power(&mut self) -> Result<Expr> {
        self.math(|parser| parser.unary(true), &[("**", Math::Power)])
    }

    fn math(
        &mut self,
        operand: fn(&mut Self) -> Result<Expr>,
        operators: &[(&str, Math)],
    ) -> Result<Expr> {
        let line = self.line();
        let first = operand(self)?;
        let mut operands = Vec::new();
        while let Some((_, op)) = operators.iter().find(|(of, _)| self.token().is_operator(of)) {
            self.advance();
            operands.push((*op, operand(self)?));
        }
        Ok(match operands.is_empty() {
            true => first,
            false => Expr { line, kind: Kind::Math(Box::new(first), operands) },
        })
    }

    /// An operand with its sign, its postfixes and its filters.
    fn unary(&mut self, with_filters: bool) -> Result<Expr> {
        let line = self.line();
        let operand = if self.skip("-") {
            let operand = self.deeper(|parser| parser.unary(false))?;
            Expr { line, kind: Kind::Negative(Box::new(operand)) }
        } else if self.skip("+") {
            let operand = self.deeper(|parser| parser.unary(false))?;
            Expr { line, kind: Kind::Positive(Box::new(operand)) }
        } else {
            self.primary()?
        };
        let operand = self.postfixes(operand)?;
        if with_filters { self.filters_and_tests(operand) } else { Ok(operand) }
    }

    fn primary(&mut self) -> Result<Expr> {
        let line = self.line();
        let kind = match self.token().clone() {
            Token::Name(name) => {
                self.advance();
                match &*name {
                    "true" | "True" => Kind::Literal(Literal::Bool(true)),
                    "false" | "False" => Kind::Literal(Literal::Bool(false)),
                    "none" | "None" => Kind::Literal(Literal::None),
                    _ => {
                        self.uses.caller |= &*name == "caller";
                        self.uses.kwargs |= &*name == "kwargs";
                        self.uses.varargs |= &*name == "varargs";
                        Kind::Name(name)
                    }
                }
            }
            Token::String(mut text) => {
                self.advance();
                while let Token::String(more) = self.token() {
                    text.push_str(more);
                    self.advance();
                }
                Kind::Literal(Literal::Text(text.into()))
            }
            Token::Int(whole) => {
                self.advance();
                Kind::Literal(Literal::Int(whole))
            }
            Token::Float(float) => {
                self.advance();
                Kind::Literal(Literal::Float(float))
            }
            Token::Operator("(") => {
                self.advance();
                let (mut items, is_tuple) = self.deeper(|parser| parser.tuple_items(true, &[]))?;
                self.require(")")?;
                match items.pop() {
                    Some(item) if !is_tuple => return Ok(item),
                    last => Kind::Tuple(items.into_iter().chain(last).collect()),
                }
            }
            Token::Operator("[") => {
                self.advance();
                Kind::List(self.items("]", Self::expression)?)
            }
            Token::Operator("{") => {
                self.advance();
                Kind::Dict(self.items("}", |parser| {
                    let key = parser.expression()?;
                    parser.require(":")?;
                    Ok((key, parser.expression()?))
                })?)
            }
            _ => return Err(self.unexpected("an expression")),
        };
        Ok(Expr { line, kind })
    }

    /// Items between commas, up to a bracket.
    fn items<T>(&mut self, end: &str, item: impl Fn(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let mut items = Vec::new();
        while !self.skip(end) {
            if !items.is_empty() {
                self.require(",")?;
                if self.skip(end) {
                    break;
                }
            }
            items.push(item(self)?);
        }
        Ok(items)
    }

    /// Attributes, items and calls.
    fn postfixes(&mut self, mut operand: Expr) -> Result<Expr> {
        let depth = self.depth;
        loop {
            let line = self.line();
            let kind = match self.token() {
                Token::Operator(".") => {
                    self.advance();
                    match self.token().clone() {
                        Token::Name(name) => {
                            self.advance();
                            Kind::Attribute(Box::new(operand), name)
                        }
                        Token::Int(index) => {
                            self.advance();
                            let kind = Kind::Literal(Literal::Int(index));
                            Kind::Item(Box::new(operand), Box::new(Expr { line, kind }))
                        }
                        _ => return Err(self.unexpected("a name or a number")),
                    }
                }
                Token::Operator("[") => {
                    self.advance();
                    self.subscript(operand)?
                }
                Token::Operator("(") => Kind::Call(Box::new(operand), self.arguments()?),
                _ => break,
            };
            operand = Expr { line, kind };
            self.chained()?;
        }
        self.depth = depth;
        Ok(operand)
    }

    /// Counts a postfix or filter, which nests the ones before.
    fn chained(&mut self) -> Result<()> {
        self.depth += 1;
        match self.depth > MAX_NESTING {
            true => fail(format!("the template nests more than {MAX_NESTING} levels deep")),
            false => Ok(()),
        }
    }

    /// An item or a slice, after the bracket.
    fn subscript(&mut self, operand: Expr) -> Result<Kind> {
        let line = self.line();
        let is_bound = |parser: &Self| !matches!(parser.token(), Token::Operator(":" | "]" | ","));
        let mut keys = Vec::new();
        let mut slice = None;
        while !self.skip("]") {
            if slice.is_some() {
                return fail("a subscript of several slices is not supported");
            }
            if !keys.is_empty() {
                self.require(",")?;
            }
            let start = match self.token().is_operator(":") {
                true => None,
                false => Some(self.expression()?),
            };
            if !self.skip(":") {
                keys.extend(start);
                continue;
            }
            if !keys.is_empty() {
                return fail("a subscript of several slices is not supported");
            }
            let stop = if is_bound(self) { Some(self.expression()?) } else { None };
            let step = match self.skip(":") && is_bound(self) {
                true => Some(self.expression()?),
                false => None,
            };
            slice = Some(Box::new([start, stop, step]));
        }
        if let Some(slice) = slice {
            return Ok(Kind::Slice(Box::new(operand), slice));
        }
        let key = match keys.pop() {
            Some(key) if keys.is_empty() => key,
            last => Expr { line, kind: Kind::Tuple(keys.into_iter().chain(last).collect()) },
        };
        Ok(Kind::Item(Box::new(operand), Box::new(key)))
    }

    fn arguments(&mut self) -> Result<Arguments> {
        let mut arguments = Arguments::default();
        self.require("(")?;
        let mut is_first = true;
        while !self.skip(")") {
            if !is_first {
                self.require(",")?;
                if self.skip(")") {
                    break;
                }
            }
            is_first = false;
            let invalid = fail("invalid order of arguments");
            if self.skip("*") {
                if arguments.list.is_some() || arguments.dict.is_some() {
                    return invalid;
                }
                arguments.list = Some(Box::new(self.expression()?));
            } else if self.skip("**") {
                if arguments.dict.is_some() {
                    return invalid;
                }
                arguments.dict = Some(Box::new(self.expression()?));
            } else if self.following().is_operator("=")
                && let Token::Name(name) = self.token().clone()
            {
                if arguments.dict.is_some() {
                    return invalid;
                }
                self.at += 2;
                arguments.keywords.push((name, self.expression()?));
            } else {
                let has_others = arguments.list.is_some()
                    || arguments.dict.is_some()
                    || !arguments.keywords.is_empty();
                if has_others {
                    return invalid;
                }
                arguments.positional.push(self.expression()?);
            }
        }
        Ok(arguments)
    }

    fn filters_and_tests(&mut self, mut operand: Expr) -> Result<Expr> {
        let depth = self.depth;
        loop {
            let line = self.line();
            operand = match self.token() {
                Token::Operator("|") => {
                    self.advance();
                    self.filter_after(Some(operand))?
                }
                Token::Operator("(") => {
                    Expr { line, kind: Kind::Call(Box::new(operand), self.arguments()?) }
                }
                token if token.is_name("is") => self.test(operand)?,
                _ => break,
            };
            self.chained()?;
        }
        self.depth = depth;
        Ok(operand)
    }

    /// Further filters of `{% filter %}` and `{% set %}`.
    pub(super) fn filters(&mut self, mut operand: Expr) -> Result<Expr> {
        let depth = self.depth;
        while self.skip("|") {
            operand = self.filter_after(Some(operand))?;
            self.chained()?;
        }
        self.depth = depth;
        Ok(operand)
    }

    /// A filter, after its `|`.
    pub(super) fn filter_after(&mut self, operand: Option<Expr>) -> Result<Expr> {
        let line = self.line();
        let name = self.dotted_name()?;
        if !is_filter(&name) {
            self.unknown.push(unknown_filter(&name).at(line));
        }
        let arguments = match self.token().is_operator("(") {
            true => self.arguments()?,
            false => Arguments::default(),
        };
        Ok(Expr { line, kind: Kind::Filter(operand.map(Box::new), name, arguments) })
    }

    fn dotted_name(&mut self) -> Result<Arc<str>> {
        let mut name = self.name()?;
        while self.skip(".") {
            name = format!("{name}.{}", self.name()?).into();
        }
        Ok(name)
    }

    fn test(&mut self, operand: Expr) -> Result<Expr> {
        let line = self.line();
        self.advance();
        let is_negated = self.skip_name("not");
        let name = self.dotted_name()?;
        if !is_test(&name) {
            self.unknown.push(unknown_test(&name).at(line));
        }
        let mut arguments = Arguments::default();
        match self.token() {
            Token::Operator("(") => arguments = self.arguments()?,
            token @ (Token::Name(_)
            | Token::String(_)
            | Token::Int(_)
            | Token::Float(_)
            | Token::Operator("[" | "{")) => {
                if token.is_name("is") {
                    return fail("tests with `is` cannot follow each other");
                }
                if !["else", "or", "and"].iter().any(|name| token.is_name(name)) {
                    let argument = self.deeper(Self::primary)?;
                    arguments.positional.push(self.postfixes(argument)?);
                }
            }
            _ => {}
        }
        let test = Expr { line, kind: Kind::Test(Box::new(operand), name, arguments) };
        Ok(match is_negated {
            true => Expr { line, kind: Kind::Not(Box::new(test)) },
            false => test,
        })
    }
}

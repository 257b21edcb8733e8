//! Parses the statements of a template.

mod expressions;
mod unset;

use std::collections::HashMap;
use std::sync::Arc;

use super::ast::{Block, Body, Expr, For, Kind, Macro, Statement, Target, Uses};
use super::fault::{Result, TemplateFault, fail};
use super::lexer::{Token, tokens};
use super::limits::MAX_NESTING;
use unset::hide_unset;

/// A template's statements and blocks.
pub(super) struct Parsed {
    pub(super) body: Body,
    pub(super) blocks: HashMap<Arc<str>, Arc<Block>>,
}

/// Parses a template.
///
/// # Errors
/// A syntax error, or a filter or test that does not exist.
pub(super) fn parse(source: &str) -> Result<Parsed> {
    let mut parser = Parser {
        tokens: tokens(source)?,
        at: 0,
        depth: 0,
        in_loop: false,
        unknown: Vec::new(),
        missing: Vec::new(),
        uses: Uses::default(),
        blocks: HashMap::new(),
    };
    let parsed = parser.body(&[], "the template");
    let mut body = parsed.map_err(|fault| fault.at(parser.line()))?;
    match parser.missing.into_iter().chain(parser.unknown).next() {
        None => {
            hide_unset(&mut body);
            Ok(Parsed { body, blocks: parser.blocks })
        }
        Some(fault) => Err(fault),
    }
}

struct Parser {
    tokens: Vec<(usize, Token)>,
    at: usize,
    depth: usize,
    /// Whether `break` and `continue` have a loop.
    in_loop: bool,
    /// Filters and tests that do not exist, since the last branch started.
    unknown: Vec<TemplateFault>,
    /// Those that are not in a branch, so that the template is invalid.
    missing: Vec<TemplateFault>,
    /// Implicit variables that the current macro uses.
    uses: Uses,
    blocks: HashMap<Arc<str>, Arc<Block>>,
}

impl Parser {
    fn token(&self) -> &Token {
        self.tokens.get(self.at).map_or(&Token::End, |(_, token)| token)
    }

    fn following(&self) -> &Token {
        self.tokens.get(self.at + 1).map_or(&Token::End, |(_, token)| token)
    }

    fn line(&self) -> usize {
        let last = self.tokens.len().saturating_sub(1);
        self.tokens.get(self.at.min(last)).map_or(1, |(line, _)| *line)
    }

    fn advance(&mut self) {
        self.at += 1;
    }

    /// Skips a token if it is this name.
    fn skip_name(&mut self, name: &str) -> bool {
        let is_name = self.token().is_name(name);
        self.at += usize::from(is_name);
        is_name
    }

    /// Skips a token if it is this operator.
    fn skip(&mut self, operator: &str) -> bool {
        let is_operator = self.token().is_operator(operator);
        self.at += usize::from(is_operator);
        is_operator
    }

    fn require(&mut self, operator: &str) -> Result<()> {
        match self.skip(operator) {
            true => Ok(()),
            false => Err(self.unexpected(&format!("`{operator}`"))),
        }
    }

    fn unexpected(&self, expected: &str) -> TemplateFault {
        TemplateFault::new(format!("unexpected {}, expected {expected}", self.token()))
    }

    fn name(&mut self) -> Result<Arc<str>> {
        let Token::Name(name) = self.token() else { return Err(self.unexpected("a name")) };
        let name = name.clone();
        self.advance();
        Ok(name)
    }

    /// Parses one level deeper.
    fn deeper<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.depth += 1;
        if self.depth > MAX_NESTING {
            return fail(format!("the template nests more than {MAX_NESTING} levels deep"));
        }
        let parsed = parse(self)?;
        self.depth -= 1;
        Ok(parsed)
    }

    /// Parses a branch: what does not exist in it is an error only when it is rendered.
    fn branch<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let before = self.unknown.len();
        let parsed = parse(self)?;
        self.unknown.truncate(before);
        Ok(parsed)
    }

    /// Parses a body of its own, such as that of a loop, also within a branch.
    fn scope<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let before = self.unknown.len();
        let parsed = parse(self)?;
        self.missing.extend(self.unknown.drain(before..));
        Ok(parsed)
    }

    /// The end of a tag, and the statements up to a tag with one of the names; without names, up to the end.
    fn statements(&mut self, ends: &[&str], of: &str) -> Result<Body> {
        self.skip(":");
        if *self.token() != Token::BlockEnd {
            return Err(self.unexpected("`%}`"));
        }
        self.advance();
        self.deeper(|parser| parser.body(ends, of))
    }

    /// As [`Self::statements`], with the tag at the end.
    fn statements_and_end(&mut self, end: &str, of: &str) -> Result<Body> {
        let body = self.statements(&[end], of)?;
        self.advance();
        Ok(body)
    }

    fn body(&mut self, ends: &[&str], of: &str) -> Result<Body> {
        let mut body = Body::new();
        loop {
            let line = self.line();
            match self.token() {
                Token::Text(text) => {
                    body.push((line, Statement::Text(text.clone())));
                    self.advance();
                }
                Token::OutputStart => {
                    self.advance();
                    let output = self.tuple(true)?;
                    if *self.token() != Token::OutputEnd {
                        return Err(self.unexpected("`}}`"));
                    }
                    self.advance();
                    body.push((line, Statement::Output(output)));
                }
                Token::BlockStart => {
                    self.advance();
                    if ends.iter().any(|end| self.token().is_name(end)) {
                        return Ok(body);
                    }
                    body.push((line, self.statement()?));
                    if *self.token() != Token::BlockEnd {
                        return Err(self.unexpected("`%}`"));
                    }
                    self.advance();
                }
                Token::End if ends.is_empty() => return Ok(body),
                Token::End => {
                    return fail(format!("`{of}` has no end, expected `{}`", ends.join("` or `")));
                }
                other => return fail(format!("unexpected {other}")),
            }
        }
    }

    fn statement(&mut self) -> Result<Statement> {
        let name = self.name()?;
        match &*name {
            "for" => self.for_loop(),
            "if" => self.condition(),
            "set" => self.set(),
            "with" => {
                let mut variables = Vec::new();
                while *self.token() != Token::BlockEnd {
                    if !variables.is_empty() {
                        self.require(",")?;
                    }
                    let target = self.target(None, false)?;
                    self.require("=")?;
                    variables.push((target, self.expression()?));
                }
                let body = self.scope(|it| it.statements_and_end("endwith", "with"))?;
                Ok(Statement::With(variables, body))
            }
            "print" => {
                let mut values = Vec::new();
                while *self.token() != Token::BlockEnd {
                    if !values.is_empty() {
                        self.require(",")?;
                    }
                    values.push(self.expression()?);
                }
                Ok(Statement::Print(values))
            }
            "autoescape" => {
                let enabled = self.expression()?;
                let body = self.scope(|it| it.statements_and_end("endautoescape", "autoescape"))?;
                Ok(Statement::AutoEscape(enabled, body))
            }
            "filter" => {
                let filter = self.filter_after(None)?;
                let filter = self.filters(filter)?;
                let body = self.scope(|it| it.statements_and_end("endfilter", "filter"))?;
                Ok(Statement::Filter(filter, body))
            }
            "block" => self.block(),
            "macro" => {
                let name = self.name()?;
                let code = self.macro_code(Some(name), "endmacro", "macro")?;
                Ok(Statement::Macro(code.0))
            }
            "call" => {
                let (code, call) = self.macro_code(None, "endcall", "call")?;
                match call {
                    Some(call) => Ok(Statement::Call(call, code)),
                    None => fail("`call` needs a call"),
                }
            }
            "generation" => {
                let in_loop = std::mem::take(&mut self.in_loop);
                let body = self.scope(|it| it.statements_and_end("endgeneration", "generation"))?;
                self.in_loop = in_loop;
                Ok(Statement::Generation(body))
            }
            "break" | "continue" if !self.in_loop => fail(format!("`{name}` is outside of a loop")),
            "break" => Ok(Statement::Break),
            "continue" => Ok(Statement::Continue),
            "include" => self.load("include"),
            "import" => self.load("import"),
            "from" => self.load("from"),
            "extends" => self.load("extends"),
            _ => fail(format!("the tag `{name}` is not supported, or is the end of another block")),
        }
    }

    /// A statement that loads a template, which fails when it is rendered.
    fn load(&mut self, name: &'static str) -> Result<Statement> {
        while !matches!(self.token(), Token::BlockEnd | Token::End) {
            self.advance();
        }
        Ok(Statement::Load(name))
    }

    fn for_loop(&mut self) -> Result<Statement> {
        let target = self.target(Some("in"), false)?;
        if target.has_name("loop") {
            return fail("cannot assign to the variable `loop` of a loop");
        }
        if !self.skip_name("in") {
            return Err(self.unexpected("`in`"));
        }
        let items = self.tuple_until(false, &["recursive"])?;
        let condition = match self.skip_name("if") {
            true => Some(self.expression()?),
            false => None,
        };
        let recursive = self.skip_name("recursive");
        let in_loop = std::mem::replace(&mut self.in_loop, true);
        let body = self.scope(|it| it.statements(&["endfor", "else"], "for"))?;
        self.in_loop = in_loop;
        let has_else = self.token().is_name("else");
        self.advance();
        let otherwise = match has_else {
            true => self.scope(|it| it.statements_and_end("endfor", "for"))?,
            false => Body::new(),
        };
        let all = For { target, items, condition, recursive, body, otherwise };
        Ok(Statement::For(Arc::new(all)))
    }

    fn condition(&mut self) -> Result<Statement> {
        let mut branches = Vec::new();
        self.branch(|parser| {
            loop {
                let test = parser.tuple(false)?;
                let body = parser.statements(&["elif", "else", "endif"], "if")?;
                branches.push((test, body));
                if parser.skip_name("elif") {
                    continue;
                }
                let has_else = parser.token().is_name("else");
                parser.advance();
                let otherwise = match has_else {
                    true => parser.statements_and_end("endif", "if")?,
                    false => Body::new(),
                };
                return Ok(Statement::If(std::mem::take(&mut branches), otherwise));
            }
        })
    }

    fn set(&mut self) -> Result<Statement> {
        let target = self.target(None, true)?;
        if self.skip("=") {
            return Ok(Statement::Set(target, self.tuple(true)?));
        }
        let filter = match self.skip("|") {
            true => {
                let filter = self.filter_after(None)?;
                Some(self.filters(filter)?)
            }
            false => None,
        };
        let in_loop = std::mem::take(&mut self.in_loop);
        let body = self.scope(|it| it.statements_and_end("endset", "set"))?;
        self.in_loop = in_loop;
        Ok(Statement::SetBlock(target, filter, body))
    }

    fn block(&mut self) -> Result<Statement> {
        let name = self.name()?;
        let scoped = self.skip_name("scoped");
        self.skip_name("required");
        let in_loop = std::mem::take(&mut self.in_loop);
        let uses = self.uses;
        let mut body = self.scope(|it| it.statements_and_end("endblock", "block"))?;
        self.uses = uses;
        self.in_loop = in_loop;
        self.skip_name(&name);
        hide_unset(&mut body);
        let block = Arc::new(Block { name: name.clone(), scoped, body });
        if self.blocks.insert(name.clone(), block.clone()).is_some() {
            return fail(format!("the block `{name}` is defined twice"));
        }
        Ok(Statement::Block(block))
    }

    /// Parameters and a body; between them, the call of `{% call %}`.
    fn macro_code(
        &mut self,
        name: Option<Arc<str>>,
        end: &str,
        of: &str,
    ) -> Result<(Arc<Macro>, Option<Expr>)> {
        let parameters = match name.is_some() || self.token().is_operator("(") {
            true => self.parameters()?,
            false => Vec::new(),
        };
        let call = match name {
            Some(_) => None,
            None => Some(self.expression()?),
        };
        if call.as_ref().is_some_and(|call| !matches!(call.kind, Kind::Call(..))) {
            return fail("`call` needs a call");
        }
        let in_loop = std::mem::take(&mut self.in_loop);
        let around = std::mem::take(&mut self.uses);
        let body = self.scope(|it| it.statements_and_end(end, of))?;
        let uses = self.uses;
        self.in_loop = in_loop;
        self.uses = Uses {
            caller: around.caller || uses.caller,
            kwargs: around.kwargs || uses.kwargs,
            varargs: around.varargs || uses.varargs,
        };
        let is_required =
            |(name, default): &(Arc<str>, Option<Expr>)| &**name == "caller" && default.is_none();
        if uses.caller && parameters.iter().any(is_required) {
            return fail("the parameter `caller` needs a default");
        }
        Ok((Arc::new(Macro { name, parameters, body, uses }), call))
    }

    fn parameters(&mut self) -> Result<Vec<(Arc<str>, Option<Expr>)>> {
        let mut parameters: Vec<(Arc<str>, Option<Expr>)> = Vec::new();
        self.require("(")?;
        while !self.skip(")") {
            if !parameters.is_empty() {
                self.require(",")?;
            }
            let name = self.name()?;
            let default = match self.skip("=") {
                true => Some(self.expression()?),
                false => None,
            };
            if default.is_none() && parameters.last().is_some_and(|(_, last)| last.is_some()) {
                return fail(format!("the parameter `{name}` after others with defaults has none"));
            }
            parameters.push((name, default));
        }
        Ok(parameters)
    }

    /// What is assigned to: names, or attributes of namespaces if `with_attributes`, or a tuple of them.
    fn target(&mut self, end: Option<&str>, with_attributes: bool) -> Result<Target> {
        let mut targets = Vec::new();
        let mut is_tuple = false;
        loop {
            let is_end = match self.token() {
                Token::BlockEnd | Token::OutputEnd => true,
                token => token.is_operator(")") || end.is_some_and(|end| token.is_name(end)),
            };
            if is_end {
                break;
            }
            let target = match self.token() {
                Token::Operator("(" | "[") => {
                    let close = if self.token().is_operator("(") { ")" } else { "]" };
                    if close == "]" {
                        return fail("cannot assign to a list");
                    }
                    self.advance();
                    let target = self.deeper(|parser| parser.target(None, false))?;
                    self.require(close)?;
                    target
                }
                Token::Name(_) => {
                    let name = self.name()?;
                    if matches!(&*name, "true" | "false" | "none" | "True" | "False" | "None") {
                        return fail(format!("cannot assign to `{name}`"));
                    }
                    match with_attributes && self.skip(".") {
                        true => Target::Attribute(name, self.name()?),
                        false => Target::Name(name),
                    }
                }
                _ => return Err(self.unexpected("what is assigned to")),
            };
            targets.push(target);
            if !self.skip(",") {
                break;
            }
            is_tuple = true;
        }
        match targets.pop() {
            Some(target) if !is_tuple => Ok(target),
            Some(target) => {
                targets.push(target);
                Ok(Target::Tuple(targets))
            }
            None => Err(self.unexpected("what is assigned to")),
        }
    }
}

impl Target {
    fn has_name(&self, name: &str) -> bool {
        match self {
            Self::Name(own) => **own == *name,
            Self::Attribute(..) => false,
            Self::Tuple(all) => all.iter().any(|target| target.has_name(name)),
        }
    }
}

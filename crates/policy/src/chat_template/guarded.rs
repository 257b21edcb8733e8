//! Rewrites a chat template so that every value it makes passes a filter.
//!
//! A template comes with the model and is not trusted. Fuel bounds its steps, but one step can double a string, so thirty
//! of them fill the memory. minijinja has no hook at its operators; so the template is parsed and printed again with the
//! filter [`CHECK`] behind every expression that makes a string or a list, and with its text as `{{ "…" }}`, which passes
//! the formatter. [`super::limits`] has both. Lines keep their numbers, for errors.

use std::fmt::Write as _;

use minijinja::machinery::{Span, ast, parse};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind};

/// The filter behind every expression that makes a value.
pub(super) const CHECK: &str = "__check";

/// The function that multiplies: its result is checked before it is made.
pub(super) const MULTIPLY: &str = "__multiply";

/// Operands of `+` and `~` between two checks, so that a long chain does not nest as deeply as it is long.
const CHAIN: usize = 8;

/// Maximum depth of nested statements and expressions.
const MAX_DEPTH: usize = 400;

/// The template `source` with a check behind every value it makes.
///
/// # Errors
/// A syntax error, a statement that loads other templates, or nesting that is too deep.
pub(super) fn guarded(source: &str, syntax: SyntaxConfig) -> Result<String, Error> {
    let mut printer = Printer { out: String::with_capacity(2 * source.len()), line: 1, depth: 0 };
    printer.statement(&parse(source, super::NAME, syntax)?)?;
    Ok(printer.out)
}

struct Printer {
    out: String,
    /// The current line of `out`, from 1.
    line: usize,
    depth: usize,
}

type Printed = Result<(), Error>;

impl Printer {
    fn push(&mut self, text: &str) {
        self.out.push_str(text);
    }

    /// Moves to the line of `span`; called inside of a tag, where line breaks have no meaning.
    fn at(&mut self, span: Span) {
        while self.line < usize::from(span.start_line) {
            self.out.push('\n');
            self.line += 1;
        }
    }

    /// Prints one level deeper.
    fn deeper(&mut self, print: impl FnOnce(&mut Self) -> Printed) -> Printed {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            let what = format!("the chat template nests more than {MAX_DEPTH} levels deep");
            return Err(Error::new(ErrorKind::SyntaxError, what));
        }
        print(self)?;
        self.depth -= 1;
        Ok(())
    }

    fn body(&mut self, statements: &[ast::Stmt<'_>]) -> Printed {
        statements
            .iter()
            .try_for_each(|statement| self.deeper(|printer| printer.statement(statement)))
    }

    /// Prints `{% name … %}`.
    fn tag(&mut self, span: Span, name: &str, rest: impl FnOnce(&mut Self) -> Printed) -> Printed {
        self.push("{% ");
        self.at(span);
        self.push(name);
        self.push(" ");
        rest(self)?;
        self.push(" %}");
        Ok(())
    }

    fn end(&mut self, name: &str) -> Printed {
        let _ = write!(self.out, "{{% end{name} %}}");
        Ok(())
    }

    fn statement(&mut self, statement: &ast::Stmt<'_>) -> Printed {
        use ast::Stmt;
        match statement {
            Stmt::Template(of) => self.body(&of.children),
            Stmt::EmitRaw(of) => {
                self.push("{{ ");
                self.at(of.span());
                self.string(of.raw);
                self.push(" }}");
                Ok(())
            }
            Stmt::EmitExpr(of) => {
                self.push("{{ ");
                self.at(of.span());
                self.expression(&of.expr)?;
                self.push(" }}");
                Ok(())
            }
            Stmt::ForLoop(of) => self.for_loop(of),
            Stmt::IfCond(of) => {
                self.condition("if", of)?;
                self.end("if")
            }
            Stmt::WithBlock(of) => {
                self.tag(of.span(), "with", |printer| {
                    printer.list(&of.assignments, |printer, (target, value)| {
                        printer.target(target)?;
                        printer.push("=");
                        printer.expression(value)
                    })
                })?;
                self.body(&of.body)?;
                self.end("with")
            }
            Stmt::Set(of) => self.tag(of.span(), "set", |printer| {
                printer.target(&of.target)?;
                printer.push(" = ");
                printer.expression(&of.expr)
            }),
            Stmt::SetBlock(of) => {
                self.tag(of.span(), "set", |printer| {
                    printer.target(&of.target)?;
                    if let Some(filter) = &of.filter {
                        printer.push(" | ");
                        printer.filters(filter)?;
                    }
                    Ok(())
                })?;
                self.body(&of.body)?;
                self.end("set")
            }
            Stmt::AutoEscape(of) => {
                self.tag(of.span(), "autoescape", |printer| printer.expression(&of.enabled))?;
                self.body(&of.body)?;
                self.end("autoescape")
            }
            Stmt::FilterBlock(of) => {
                self.tag(of.span(), "filter", |printer| printer.filters(&of.filter))?;
                self.body(&of.body)?;
                self.end("filter")
            }
            Stmt::Block(of) => {
                self.tag(of.span(), "block", |printer| {
                    printer.push(of.name);
                    Ok(())
                })?;
                self.body(&of.body)?;
                self.end("block")
            }
            Stmt::Macro(of) => {
                self.tag(of.span(), "macro", |printer| {
                    printer.push(of.name);
                    printer.parameters(of)
                })?;
                self.body(&of.body)?;
                self.end("macro")
            }
            Stmt::CallBlock(of) => {
                self.tag(of.span(), "call", |printer| {
                    printer.parameters(&of.macro_decl)?;
                    printer.push(" ");
                    printer.call(&of.call)
                })?;
                self.body(&of.macro_decl.body)?;
                self.end("call")
            }
            Stmt::Do(of) => self.tag(of.span(), "do", |printer| printer.call(&of.call)),
            Stmt::Continue(of) => self.tag(of.span(), "continue", |_| Ok(())),
            Stmt::Break(of) => self.tag(of.span(), "break", |_| Ok(())),
            Stmt::Import(_) | Stmt::FromImport(_) | Stmt::Extends(_) | Stmt::Include(_) => {
                let what = "a chat template cannot load other templates";
                Err(Error::new(ErrorKind::SyntaxError, what))
            }
        }
    }

    fn for_loop(&mut self, of: &ast::Spanned<ast::ForLoop<'_>>) -> Printed {
        self.tag(of.span(), "for", |printer| {
            printer.target(&of.target)?;
            printer.push(" in (");
            printer.expression(&of.iter)?;
            printer.push(")");
            if let Some(filter) = &of.filter_expr {
                printer.push(" if (");
                printer.expression(filter)?;
                printer.push(")");
            }
            if of.recursive {
                printer.push(" recursive");
            }
            Ok(())
        })?;
        self.body(&of.body)?;
        if !of.else_body.is_empty() {
            self.push("{% else %}");
            self.body(&of.else_body)?;
        }
        self.end("for")
    }

    /// Prints `{% if … %}` or `{% elif … %}` with its branches.
    fn condition(&mut self, name: &str, of: &ast::Spanned<ast::IfCond<'_>>) -> Printed {
        self.tag(of.span(), name, |printer| printer.expression(&of.expr))?;
        self.body(&of.true_body)?;
        match of.false_body.as_slice() {
            [] => Ok(()),
            [ast::Stmt::IfCond(other)] => self.deeper(|printer| printer.condition("elif", other)),
            other => {
                self.push("{% else %}");
                self.body(other)
            }
        }
    }

    fn parameters(&mut self, of: &ast::Macro<'_>) -> Printed {
        let required = of.args.len().saturating_sub(of.defaults.len());
        let defaults = std::iter::repeat_n(None, required).chain(of.defaults.iter().map(Some));
        self.push("(");
        self.list(of.args.iter().zip(defaults), |printer, (name, default)| {
            printer.target(name)?;
            if let Some(default) = default {
                printer.push("=");
                printer.expression(default)?;
            }
            Ok(())
        })?;
        self.push(")");
        Ok(())
    }

    fn list<T>(
        &mut self,
        items: impl IntoIterator<Item = T>,
        mut print: impl FnMut(&mut Self, T) -> Printed,
    ) -> Printed {
        for (index, item) in items.into_iter().enumerate() {
            if index > 0 {
                self.push(", ");
            }
            print(self, item)?;
        }
        Ok(())
    }

    /// Prints what is assigned to: names, attributes, or a tuple of them.
    fn target(&mut self, target: &ast::Expr<'_>) -> Printed {
        let items = match target {
            ast::Expr::List(of) => &of.items,
            ast::Expr::Tuple(of) => &of.items,
            ast::Expr::GetAttr(of) => {
                self.target(&of.expr)?;
                let _ = write!(self.out, ".{}", of.name);
                return Ok(());
            }
            ast::Expr::Var(of) => {
                self.push(of.id);
                return Ok(());
            }
            other => return self.expression(other),
        };
        self.push("(");
        self.list(items, |printer, item| printer.deeper(|printer| printer.target(item)))?;
        self.push(if items.len() == 1 { ",)" } else { ")" });
        Ok(())
    }

    /// Prints `(…)|CHECK`.
    fn checked(&mut self, print: impl FnOnce(&mut Self) -> Printed) -> Printed {
        self.push("(");
        print(self)?;
        let _ = write!(self.out, ")|{CHECK}");
        Ok(())
    }

    fn expression(&mut self, expression: &ast::Expr<'_>) -> Printed {
        self.at(expression.span());
        self.deeper(|printer| printer.expression_at(expression))
    }

    fn expression_at(&mut self, expression: &ast::Expr<'_>) -> Printed {
        use ast::Expr;
        match expression {
            Expr::Var(of) => {
                self.push(of.id);
                Ok(())
            }
            Expr::Const(of) => self.constant(&of.value),
            Expr::Slice(of) => self.checked(|printer| {
                printer.primary(&of.expr)?;
                printer.push("[");
                for (index, bound) in [&of.start, &of.stop, &of.step].into_iter().enumerate() {
                    if index > 0 {
                        printer.push(":");
                    }
                    if let Some(bound) = bound {
                        printer.expression(bound)?;
                    }
                }
                printer.push("]");
                Ok(())
            }),
            Expr::UnaryOp(of) => {
                match of.op {
                    ast::UnaryOpKind::Not => {
                        self.push("(not ");
                        self.expression(&of.expr)?;
                    }
                    // A filter would apply to the negative.
                    ast::UnaryOpKind::Neg => {
                        self.push("(-");
                        self.primary(&of.expr)?;
                    }
                }
                self.push(")");
                Ok(())
            }
            Expr::BinOp(of) => self.binary(of),
            Expr::Compare(of) => {
                self.push("(");
                self.expression(&of.expr)?;
                for operand in &of.ops {
                    self.push(comparison(operand.op));
                    self.expression(&operand.expr)?;
                }
                self.push(")");
                Ok(())
            }
            Expr::IfExpr(of) => {
                self.push("(");
                self.expression(&of.true_expr)?;
                self.push(" if ");
                self.expression(&of.test_expr)?;
                if let Some(other) = &of.false_expr {
                    self.push(" else ");
                    self.expression(other)?;
                }
                self.push(")");
                Ok(())
            }
            Expr::Filter(_) => self.filters(expression),
            Expr::Test(of) => {
                self.push("(");
                self.expression(&of.expr)?;
                let _ = write!(self.out, " is {}", of.name);
                self.arguments_if_any(&of.args)?;
                self.push(")");
                Ok(())
            }
            Expr::GetAttr(of) => {
                self.primary(&of.expr)?;
                let _ = write!(self.out, ".{}", of.name);
                Ok(())
            }
            Expr::GetItem(of) => {
                self.primary(&of.expr)?;
                self.push("[");
                self.expression(&of.subscript_expr)?;
                self.push("]");
                Ok(())
            }
            Expr::Call(of) => self.checked(|printer| printer.call(of)),
            Expr::List(of) => self.checked(|printer| {
                printer.push("[");
                printer.list(&of.items, Self::expression)?;
                printer.push("]");
                Ok(())
            }),
            Expr::Tuple(of) => self.checked(|printer| {
                printer.push("(");
                printer.list(&of.items, Self::expression)?;
                printer.push(if of.items.len() == 1 { ",)" } else { ")" });
                Ok(())
            }),
            Expr::Map(of) => self.checked(|printer| {
                printer.push("{");
                printer.list(of.keys.iter().zip(&of.values), |printer, (key, value)| {
                    printer.expression(key)?;
                    printer.push(": ");
                    printer.expression(value)
                })?;
                printer.push("}");
                Ok(())
            }),
        }
    }

    /// Prints what `.`, `[` or `(` follows. Elsewhere an operand needs no parentheses, since it has its own or ends with a
    /// filter, which binds more tightly than operators.
    fn primary(&mut self, expression: &ast::Expr<'_>) -> Printed {
        use ast::Expr;
        if matches!(expression, Expr::Var(_) | Expr::GetAttr(_) | Expr::GetItem(_)) {
            return self.expression(expression);
        }
        self.push("(");
        self.expression(expression)?;
        self.push(")");
        Ok(())
    }

    fn binary(&mut self, of: &ast::Spanned<ast::BinOp<'_>>) -> Printed {
        use ast::BinOpKind;
        let operator = match of.op {
            BinOpKind::Add => return self.chain(of, " + "),
            BinOpKind::Concat => return self.chain(of, " ~ "),
            BinOpKind::Mul => {
                let _ = write!(self.out, "{MULTIPLY}(");
                self.expression(&of.left)?;
                self.push(", ");
                self.expression(&of.right)?;
                self.push(")");
                return Ok(());
            }
            BinOpKind::Eq => " == ",
            BinOpKind::Ne => " != ",
            BinOpKind::Lt => " < ",
            BinOpKind::Lte => " <= ",
            BinOpKind::Gt => " > ",
            BinOpKind::Gte => " >= ",
            BinOpKind::ScAnd => return self.conditions(of, " and "),
            BinOpKind::ScOr => return self.conditions(of, " or "),
            BinOpKind::Sub => " - ",
            BinOpKind::Div => " / ",
            BinOpKind::FloorDiv => " // ",
            BinOpKind::Rem => " % ",
            BinOpKind::Pow => " ** ",
            BinOpKind::In => " in ",
        };
        self.push("(");
        self.expression(&of.left)?;
        self.push(operator);
        self.expression(&of.right)?;
        self.push(")");
        Ok(())
    }

    /// Prints `a + b + …`, with a check after every [`CHAIN`] operands.
    fn chain(&mut self, of: &ast::BinOp<'_>, name: &str) -> Printed {
        let (first, operands) = left_operands(of);
        let groups = operands.chunks(CHAIN);
        self.push(&"(".repeat(groups.len()));
        self.expression(first)?;
        for group in groups {
            for operand in group {
                self.push(name);
                self.expression(operand)?;
            }
            let _ = write!(self.out, ")|{CHECK}");
        }
        Ok(())
    }

    /// Prints `a and b and …`.
    fn conditions(&mut self, of: &ast::BinOp<'_>, name: &str) -> Printed {
        let (first, operands) = left_operands(of);
        self.push("(");
        self.expression(first)?;
        for operand in operands {
            self.push(name);
            self.expression(operand)?;
        }
        self.push(")");
        Ok(())
    }

    /// Prints a chain of filters, each with a check; in `{% filter … %}` and `{% set … | … %}` its first has no operand.
    fn filters(&mut self, expression: &ast::Expr<'_>) -> Printed {
        let ast::Expr::Filter(of) = expression else { return self.expression(expression) };
        if let Some(operand) = &of.expr {
            self.deeper(|printer| printer.filters(operand))?;
            self.push("|");
        }
        self.push(of.name);
        self.arguments_if_any(&of.args)?;
        let _ = write!(self.out, "|{CHECK}");
        Ok(())
    }

    fn call(&mut self, of: &ast::Call<'_>) -> Printed {
        self.primary(&of.expr)?;
        self.arguments(&of.args)
    }

    fn arguments_if_any(&mut self, arguments: &[ast::CallArg<'_>]) -> Printed {
        if arguments.is_empty() { Ok(()) } else { self.arguments(arguments) }
    }

    fn arguments(&mut self, arguments: &[ast::CallArg<'_>]) -> Printed {
        self.push("(");
        self.list(arguments, |printer, argument| match argument {
            ast::CallArg::Pos(value) => printer.expression(value),
            ast::CallArg::Kwarg(name, value) => {
                let _ = write!(printer.out, "{name}=");
                printer.expression(value)
            }
            ast::CallArg::PosSplat(value) => {
                printer.push("*");
                printer.expression(value)
            }
            ast::CallArg::KwargSplat(value) => {
                printer.push("**");
                printer.expression(value)
            }
        })?;
        self.push(")");
        Ok(())
    }

    fn constant(&mut self, value: &minijinja::Value) -> Printed {
        match value.as_str() {
            Some(text) => self.string(text),
            None if value.kind() == ValueKind::None => self.push("none"),
            None => {
                // `1e300` would be an integer followed by a name.
                let _ = match f64::try_from(value.clone()) {
                    Ok(float) if !value.is_integer() && value.is_number() => {
                        write!(self.out, "{float:?}")
                    }
                    _ => write!(self.out, "{value}"),
                };
            }
        }
        Ok(())
    }

    /// Prints a string literal, on one line.
    fn string(&mut self, text: &str) {
        // The escapes of JSON are among those of Jinja.
        let _ = write!(self.out, "{}", serde_json::Value::from(text));
    }
}

fn comparison(op: ast::CompareOpKind) -> &'static str {
    use ast::CompareOpKind;
    match op {
        CompareOpKind::Eq => " == ",
        CompareOpKind::Ne => " != ",
        CompareOpKind::Lt => " < ",
        CompareOpKind::Lte => " <= ",
        CompareOpKind::Gt => " > ",
        CompareOpKind::Gte => " >= ",
        CompareOpKind::In => " in ",
        CompareOpKind::NotIn => " not in ",
    }
}

/// The operands of a chain of one operator, without the nesting of its left ones: the first and the others.
fn left_operands<'n, 'a>(of: &'n ast::BinOp<'a>) -> (&'n ast::Expr<'a>, Vec<&'n ast::Expr<'a>>) {
    let kind = std::mem::discriminant(&of.op);
    let (mut operands, mut first) = (vec![&of.right], &of.left);
    while let ast::Expr::BinOp(left) = first
        && std::mem::discriminant(&left.op) == kind
    {
        operands.push(&left.right);
        first = &left.left;
    }
    operands.reverse();
    (first, operands)
}

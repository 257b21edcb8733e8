//! Rewrites a chat template so that every value it makes passes a filter.
//!
//! A template comes with the model and is not trusted. Fuel bounds its steps, but one step can double a string, so thirty
//! of them fill the memory. minijinja has no hook at its operators; so the template is parsed and printed again with the
//! filter [`CHECK`] behind every expression that makes a string or a list, and with its text as `{{ "…" }}`, which passes
//! the formatter. [`super::limits`] has both. Lines keep their numbers, for errors.

mod expressions;

use std::fmt::Write as _;

use minijinja::machinery::{Span, ast, parse};
use minijinja::syntax::SyntaxConfig;
use minijinja::{Error, ErrorKind};

/// The filter behind every expression that makes a value.
pub(super) const CHECK: &str = "__check";

/// The function that multiplies: its result is checked before it is made.
pub(super) const MULTIPLY: &str = "__multiply";

/// The name of the one template.
pub(super) const NAME: &str = "chat template";

/// Maximum depth of nested statements and expressions.
const MAX_DEPTH: usize = 400;

/// The template `source` with a check behind every value it makes.
///
/// # Errors
/// A syntax error, a statement that loads other templates, or nesting that is too deep.
pub(super) fn guarded(source: &str, syntax: SyntaxConfig) -> Result<String, Error> {
    let mut printer = Printer { out: String::with_capacity(2 * source.len()), line: 1, depth: 0 };
    printer.statement(&parse(source, NAME, syntax)?)?;
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
}

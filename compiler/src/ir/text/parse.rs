//! From a text to its graph.

use std::collections::BTreeMap;

use convc_runtime::{AttrValue, Attrs, Constant, DType, Dim, Fact, Op, Tensor};

use super::{LARGEST, TextError, generate::Generator, generate::integers, is_name_part, is_name_start};
use crate::ir::{Graph, Value};

/// Reads the text form of a graph.
///
/// # Errors
/// [`TextError`]: where, and what was expected.
pub fn parse(text: &str) -> Result<Graph, TextError> {
    let mut p = Parser { rest: text, text, graph: Graph::new(), values: BTreeMap::new() };
    p.graph()?;
    p.space();
    if !p.rest.is_empty() {
        return Err(p.expected("the end"));
    }
    Ok(p.graph)
}

struct Parser<'a> {
    text: &'a str,
    rest: &'a str,
    graph: Graph,
    values: BTreeMap<String, Value>,
}

type Parsed<T> = Result<T, TextError>;

impl<'a> Parser<'a> {
    fn error_at(&self, rest: &str, problem: impl Into<String>) -> TextError {
        let read = &self.text[..self.text.len() - rest.len()];
        let line = read.matches('\n').count() + 1;
        let column = read.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        TextError { line, column, problem: problem.into() }
    }

    fn error(&self, problem: impl Into<String>) -> TextError {
        self.error_at(self.rest, problem)
    }

    fn expected(&self, what: &str) -> TextError {
        let found: String = self.rest.chars().take_while(|c| *c != '\n').take(20).collect();
        self.error(if found.is_empty() {
            format!("{what} is expected")
        } else {
            format!("{what} is expected, {found:?} is there")
        })
    }

    /// Skips white space and comments.
    fn space(&mut self) {
        loop {
            self.rest = self.rest.trim_start();
            if !self.rest.starts_with('#') {
                return;
            }
            self.rest = self.rest.find('\n').map_or("", |end| &self.rest[end..]);
        }
    }

    fn eat(&mut self, token: &str) -> bool {
        self.space();
        let Some(rest) = self.rest.strip_prefix(token) else { return false };
        // A word ends where the name does.
        if token.starts_with(is_name_start) && rest.starts_with(is_name_part) {
            return false;
        }
        self.rest = rest;
        true
    }

    fn need(&mut self, token: &str) -> Parsed<()> {
        if self.eat(token) { Ok(()) } else { Err(self.expected(&format!("{token:?}"))) }
    }

    fn take_while(&mut self, keep: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !keep(c)).unwrap_or(self.rest.len());
        let (token, rest) = self.rest.split_at(end);
        self.rest = rest;
        token
    }

    fn word(&mut self, what: &str) -> Parsed<&'a str> {
        self.space();
        if !self.rest.starts_with(is_name_start) {
            return Err(self.expected(what));
        }
        Ok(self.take_while(is_name_part))
    }

    /// `elements` separated by commas up to `close`, which is eaten.
    fn list<T>(&mut self, close: &str, mut element: impl FnMut(&mut Self) -> Parsed<T>) -> Parsed<Vec<T>> {
        let mut out = Vec::new();
        if self.eat(close) {
            return Ok(out);
        }
        loop {
            if out.len() >= LARGEST {
                return Err(self.error(format!("there are more than {LARGEST} elements")));
            }
            out.push(element(self)?);
            if self.eat(close) {
                return Ok(out);
            }
            self.need(",")?;
        }
    }

    fn name(&mut self) -> Parsed<String> {
        self.space();
        match self.rest.chars().next() {
            Some('"') => self.string(),
            Some('%') => {
                let start = self.rest;
                self.rest = &self.rest[1..];
                let digits = self.take_while(|c| c.is_ascii_digit());
                if digits.is_empty() {
                    return Err(self.expected("a number"));
                }
                Ok(start[..=digits.len()].to_owned())
            }
            _ => Ok(self.word("a name")?.to_owned()),
        }
    }

    /// A string in quotes, with Rust's escapes.
    fn string(&mut self) -> Parsed<String> {
        let start = self.rest;
        self.need("\"")?;
        let mut out = String::new();
        loop {
            let mut chars = self.rest.chars();
            match chars.next() {
                None => return Err(self.error_at(start, "the string does not end")),
                Some('"') => {
                    self.rest = chars.as_str();
                    return Ok(out);
                }
                Some('\\') => {
                    let c = chars.next();
                    self.rest = chars.as_str();
                    out.push(match c {
                        Some('n') => '\n',
                        Some('r') => '\r',
                        Some('t') => '\t',
                        Some('0') => '\0',
                        Some(c @ ('\\' | '"' | '\'')) => c,
                        Some('u') => {
                            self.need("{")?;
                            let hex = self.take_while(|c| c.is_ascii_hexdigit());
                            let c = u32::from_str_radix(hex, 16).ok().and_then(char::from_u32);
                            let c = c.ok_or_else(|| self.error("the escape names no character"))?;
                            self.need("}")?;
                            c
                        }
                        _ => return Err(self.error("the escape is not one of \\n \\r \\t \\0 \\\\ \\\" \\' \\u{..}")),
                    });
                }
                Some(c) => {
                    out.push(c);
                    self.rest = chars.as_str();
                }
            }
        }
    }

    /// An integer (`Ok`) or a float (`Err`).
    fn number(&mut self) -> Parsed<Result<i64, f64>> {
        self.space();
        let start = self.rest;
        let token = self.take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
        if let Ok(i) = token.parse::<i64>() {
            return Ok(Ok(i));
        }
        match token.parse::<f64>() {
            Ok(f) if !token.is_empty() => Ok(Err(f)),
            _ => {
                self.rest = start;
                Err(self.expected("a number"))
            }
        }
    }

    fn dtype(&mut self) -> Parsed<DType> {
        self.space();
        let start = self.rest;
        let word = self.word("an element type")?;
        DType::from_name(word).ok_or_else(|| self.error_at(start, format!("{word:?} is no element type")))
    }

    /// `f32[N, 3, max(1, '?K')]`
    fn fact(&mut self) -> Parsed<Fact> {
        let dtype = self.dtype()?;
        self.need("[")?;
        let dims = self.list("]", Self::dim)?;
        Ok(Fact::new(dtype, dims))
    }

    fn dim(&mut self) -> Parsed<Dim> {
        self.space();
        let (mut depth, mut quote, mut escaped) = (0usize, false, false);
        let end = self.rest.char_indices().find(|(_, c)| {
            let inside = quote || depth > 0;
            match c {
                _ if escaped => escaped = false,
                '\\' if quote => escaped = true,
                '\'' => quote = !quote,
                '(' if !quote => depth += 1,
                ')' if !quote => depth = depth.saturating_sub(1),
                ',' | ']' | '\n' => return !inside,
                _ => {}
            }
            false
        });
        let (text, rest) = self.rest.split_at(end.map_or(self.rest.len(), |e| e.0));
        let dim = Dim::parse(text.trim_end()).map_err(|e| self.error(format!("{:?}: {e}", text.trim_end())))?;
        self.rest = rest;
        Ok(dim)
    }

    fn fixed_type(&mut self) -> Parsed<(DType, Vec<usize>)> {
        self.space();
        let start = self.rest;
        let fact = self.fact()?;
        let shape = fact.fixed_shape().ok_or_else(|| self.error_at(start, "a constant's sizes are fixed"))?;
        Ok((fact.dtype, shape))
    }

    /// The elements of a constant of this type.
    fn literal(&mut self, dtype: DType, shape: &[usize]) -> Parsed<Constant> {
        self.space();
        let start = self.rest;
        let tensor = if self.eat("[") {
            let v = self.list("]", Self::number)?;
            if dtype.is_float() {
                let v: Vec<f64> = v.into_iter().map(|x| x.map_or_else(|f| f, |i| i as f64)).collect();
                Tensor::new(shape, v).ok().map(|t| t.rounded_to(dtype))
            } else {
                let v: Option<Vec<i64>> = v.into_iter().map(Result::ok).collect();
                v.filter(|v| convc_runtime::dim::element_count(shape) == Some(v.len()))
                    .and_then(|v| integers(dtype, shape, &v))
            }
        } else {
            let generator = match self.word("a list of elements or a generator")? {
                "zeros" => Generator::Zeros,
                "ones" => Generator::Ones,
                "random" => Generator::Random(self.seed()?),
                "positive" => Generator::Positive(self.seed()?),
                other => {
                    let problem = format!("{other:?} is none of the generators zeros, ones, random(n), positive(n)");
                    return Err(self.error_at(start, problem));
                }
            };
            generator.tensor(dtype, shape)
        };
        tensor
            .and_then(|t| Constant::from_tensor(&t).ok())
            .ok_or_else(|| self.error_at(start, format!("these are not the elements of a {dtype}{shape:?}")))
    }

    fn seed(&mut self) -> Parsed<u64> {
        self.need("(")?;
        let start = self.rest;
        let seed = self.number()?.ok().and_then(|n| u64::try_from(n).ok());
        let seed = seed.ok_or_else(|| self.error_at(start, "a seed is a number from 0"))?;
        self.need(")")?;
        Ok(seed)
    }

    fn attribute(&mut self) -> Parsed<(String, AttrValue)> {
        let name = self.word("an attribute's name")?.to_owned();
        self.need("=")?;
        self.space();
        let value = match self.rest.chars().next() {
            Some('"') => AttrValue::Str(self.string()?),
            Some('[') => self.attribute_list()?,
            Some(c) if c.is_ascii_alphabetic() && DType::from_name(self.peek()).is_some() => {
                let (dtype, shape) = self.fixed_type()?;
                self.need("=")?;
                let start = self.rest;
                let constant = self.literal(dtype, &shape)?;
                AttrValue::Tensor(constant.to_tensor().map_err(|e| self.error_at(start, e.to_string()))?)
            }
            _ => match self.number()? {
                Ok(i) => AttrValue::Int(i),
                Err(f) => AttrValue::Float(f as f32),
            },
        };
        Ok((name, value))
    }

    /// The word that begins here, which stays.
    fn peek(&self) -> &'a str {
        let end = self.rest.find(|c| !is_name_part(c)).unwrap_or(self.rest.len());
        &self.rest[..end]
    }

    fn attribute_list(&mut self) -> Parsed<AttrValue> {
        self.need("[")?;
        self.space();
        if self.rest.starts_with('"') {
            return Ok(AttrValue::Strs(self.list("]", |p| {
                p.space();
                p.string()
            })?));
        }
        let v = self.list("]", Self::number)?;
        if v.is_empty() {
            return Ok(if self.eat("floats") {
                AttrValue::Floats(Vec::new())
            } else if self.eat("strings") {
                AttrValue::Strs(Vec::new())
            } else {
                AttrValue::Ints(Vec::new())
            });
        }
        let ints: Option<Vec<i64>> = v.iter().map(|x| x.ok()).collect();
        Ok(match ints {
            Some(ints) => AttrValue::Ints(ints),
            None => AttrValue::Floats(v.into_iter().map(|x| x.map_or_else(|f| f as f32, |i| i as f32)).collect()),
        })
    }

    fn define(&mut self, start: &str, name: String, v: Value) -> Parsed<()> {
        if self.values.contains_key(&name) {
            return Err(self.error_at(start, format!("{name} is defined twice")));
        }
        self.values.insert(name, v);
        Ok(())
    }

    fn operand(&mut self) -> Parsed<Option<Value>> {
        if self.eat("_") {
            return Ok(None);
        }
        let start = self.rest;
        let name = self.name()?;
        match self.values.get(&name) {
            Some(v) => Ok(Some(*v)),
            None => Err(self.error_at(start, format!("{name} is not defined"))),
        }
    }

    fn graph(&mut self) -> Parsed<()> {
        self.need("graph")?;
        self.need("(")?;
        self.list(")", Self::input)?;
        self.need("{")?;
        while !self.eat("return") {
            self.statement()?;
        }
        loop {
            self.space();
            let start = self.rest;
            let Some(value) = self.operand()? else { return Err(self.error_at(start, "a hole is no output")) };
            self.need("as")?;
            self.space();
            let start = self.rest;
            let name = self.name()?;
            if self.graph.outputs().iter().any(|o| o.name == name) {
                return Err(self.error_at(start, format!("there are two outputs {name}")));
            }
            self.graph.add_output(name, value, None);
            if !self.eat(",") {
                return self.need("}");
            }
        }
    }

    fn input(&mut self) -> Parsed<()> {
        self.space();
        let start = self.rest;
        let name = self.name()?;
        self.need(":")?;
        let fact = self.fact()?;
        let default = if self.eat("=") {
            let shape = fact.fixed_shape().ok_or_else(|| self.error("the default's sizes are not fixed"))?;
            Some(self.literal(fact.dtype, &shape)?)
        } else {
            None
        };
        let v = self.graph.add_input(name.clone(), Some(fact), default);
        self.define(start, name, v)
    }

    fn statement(&mut self) -> Parsed<()> {
        self.space();
        let start = self.rest;
        let name = self.name()?;
        if self.eat(":") {
            let (dtype, shape) = self.fixed_type()?;
            self.need("=")?;
            let constant = self.literal(dtype, &shape)?;
            let v = self.graph.add_constant(constant);
            self.graph.set_value_name(v, name.clone());
            return self.define(start, name, v);
        }
        let mut names = vec![name];
        while self.eat(",") {
            names.push(self.name()?);
        }
        self.need("=")?;
        self.space();
        let at = self.rest;
        let op_name = self.word("an operator")?;
        self.need("(")?;
        let operands = self.list(")", Self::operand)?;
        let attributes = if self.eat("{") { self.list("}", Self::attribute)? } else { Vec::new() };
        let mut attrs = Attrs::new();
        for (name, value) in attributes {
            if attrs.insert(name.clone(), value).is_some() {
                return Err(self.error_at(at, format!("attribute {name} is given twice")));
            }
        }
        let op = Op::from_attrs(op_name, attrs).map_err(|e| self.error_at(at, e.to_string()))?;
        let node =
            self.graph.add_op(op, operands, names.len()).map_err(|e| self.error_at(at, format!("{op_name}: {e}")))?;
        if self.graph.node(node).outputs() != names.len() {
            let problem = format!("{op_name} has {} outputs", self.graph.node(node).outputs());
            return Err(self.error_at(start, problem));
        }
        if self.eat(":") {
            self.types(node)?;
        }
        for (port, name) in names.into_iter().enumerate() {
            let v = Value { node, port: u32::try_from(port).unwrap_or(u32::MAX) };
            self.define(start, name, v)?;
        }
        Ok(())
    }

    /// The types behind an operator, which are to be those that follow.
    fn types(&mut self, node: crate::ir::NodeId) -> Parsed<()> {
        for port in 0..self.graph.node(node).outputs() {
            if port > 0 {
                self.need(",")?;
            }
            self.space();
            let start = self.rest;
            let given = self.fact()?;
            let inferred = self.graph.node(node).facts().get(port).cloned().flatten();
            match inferred {
                Some(f) if f.dtype == given.dtype && f.shape == given.shape => {}
                Some(f) => return Err(self.error_at(start, format!("{given} is given, {f} follows"))),
                None => return Err(self.error_at(start, "the type does not follow")),
            }
        }
        Ok(())
    }
}

//! Attributes of operators: typed in each operator's struct, and as a plain map for the plan and the text form.

use std::{collections::BTreeMap, fmt};

use crate::{DType, OpError, Tensor};

/// The value of one attribute.
#[derive(Debug, Clone, PartialEq)]
pub enum AttrValue {
    /// An integer; booleans are 0 and 1.
    Int(i64),
    /// A float.
    Float(f32),
    /// A string; enumerations are strings.
    Str(String),
    /// Integers.
    Ints(Vec<i64>),
    /// Floats.
    Floats(Vec<f32>),
    /// Strings.
    Strs(Vec<String>),
    /// A tensor.
    Tensor(Tensor),
}

/// Attributes by name.
pub type Attrs = BTreeMap<String, AttrValue>;

/// A type that a field of an operator's struct may have.
pub trait Attribute: Sized {
    /// As a plain value; `None` leaves the attribute out.
    fn to_value(&self) -> Option<AttrValue>;
    /// From a plain value, or from its absence.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    fn from_value(value: Option<AttrValue>) -> Result<Self, String>;
}

macro_rules! attribute {
    ($t:ty, $variant:ident, $what:literal) => {
        impl Attribute for $t {
            fn to_value(&self) -> Option<AttrValue> {
                Some(AttrValue::$variant(self.clone()))
            }
            fn from_value(value: Option<AttrValue>) -> Result<Self, String> {
                match value {
                    Some(AttrValue::$variant(v)) => Ok(v),
                    Some(other) => Err(format!("{other} is not {}", $what)),
                    None => Err(format!("{} is required", $what)),
                }
            }
        }
    };
}
attribute!(i64, Int, "an integer");
attribute!(f32, Float, "a float");
attribute!(String, Str, "a string");
attribute!(Vec<i64>, Ints, "a list of integers");
attribute!(Vec<f32>, Floats, "a list of floats");
attribute!(Vec<String>, Strs, "a list of strings");
attribute!(Tensor, Tensor, "a tensor");

impl Attribute for bool {
    fn to_value(&self) -> Option<AttrValue> {
        Some(AttrValue::Int(i64::from(*self)))
    }
    fn from_value(value: Option<AttrValue>) -> Result<Self, String> {
        match value {
            Some(AttrValue::Int(0)) => Ok(false),
            Some(AttrValue::Int(1)) => Ok(true),
            Some(other) => Err(format!("{other} is neither 0 nor 1")),
            None => Err("0 or 1 is required".into()),
        }
    }
}

impl Attribute for DType {
    fn to_value(&self) -> Option<AttrValue> {
        Some(AttrValue::Str(self.name().into()))
    }
    fn from_value(value: Option<AttrValue>) -> Result<Self, String> {
        match value {
            Some(AttrValue::Str(s)) => DType::from_name(&s).ok_or_else(|| format!("{s:?} is not an element type")),
            Some(other) => Err(format!("{other} is not an element type")),
            None => Err("an element type is required".into()),
        }
    }
}

impl<T: Attribute> Attribute for Option<T> {
    fn to_value(&self) -> Option<AttrValue> {
        self.as_ref()?.to_value()
    }
    fn from_value(value: Option<AttrValue>) -> Result<Self, String> {
        value.map(|v| T::from_value(Some(v))).transpose()
    }
}

impl fmt::Display for AttrValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AttrValue::Int(v) => write!(f, "{v}"),
            AttrValue::Float(v) => write!(f, "{v:?}"),
            AttrValue::Str(v) => write!(f, "{v:?}"),
            AttrValue::Ints(v) => write!(f, "{v:?}"),
            AttrValue::Floats(v) => write!(f, "{v:?}"),
            AttrValue::Strs(v) => write!(f, "{v:?}"),
            AttrValue::Tensor(t) => write!(f, "{}{:?}", t.dtype(), t.shape()),
        }
    }
}

/// Takes the attribute `name` out of `attrs` as a `T`.
///
/// # Errors
/// [`OpError::Attribute`] if it has another type or is missing.
pub fn take<T: Attribute>(attrs: &mut Attrs, name: &'static str) -> Result<T, OpError> {
    T::from_value(attrs.remove(name)).map_err(|problem| OpError::Attribute { name, problem })
}

/// Declares an operator's attributes: a struct whose fields all are [`Attribute`]s, with `to_attrs` and `from_attrs`.
#[macro_export]
macro_rules! attributes {
    ($(#[$doc:meta])* pub struct $name:ident { $($(#[$fdoc:meta])* pub $field:ident: $t:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name { $($(#[$fdoc])* pub $field: $t,)* }

        impl $name {
            /// The attributes as a plain map.
            #[must_use]
            pub fn to_attrs(&self) -> $crate::attrs::Attrs {
                #[allow(unused_mut)]
                let mut attrs = $crate::attrs::Attrs::new();
                $(if let Some(v) = $crate::attrs::Attribute::to_value(&self.$field) {
                    attrs.insert(stringify!($field).into(), v);
                })*
                attrs
            }

            /// Takes the attributes out of a plain map.
            ///
            /// # Errors
            /// If one is missing or of another type.
            #[allow(unused_variables)]
            pub fn from_attrs(attrs: &mut $crate::attrs::Attrs) -> Result<Self, $crate::OpError> {
                Ok($name { $($field: $crate::attrs::take(attrs, stringify!($field))?,)* })
            }
        }
    };
}

/// Declares an enumeration that is an attribute: each variant is spelled as its text.
#[macro_export]
macro_rules! attribute_enum {
    ($(#[$doc:meta])* pub enum $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// Every variant, in declaration order.
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];
            /// Every variant's text, in declaration order.
            pub const TEXTS: &'static [&'static str] = &[$($text,)*];

            /// The text of this variant.
            #[must_use]
            pub fn text(self) -> &'static str {
                match self { $($name::$variant => $text,)* }
            }

            /// The variant with this text.
            #[must_use]
            pub fn from_text(text: &str) -> Option<$name> {
                match text { $($text => Some($name::$variant),)* _ => None }
            }
        }

        impl $crate::attrs::Attribute for $name {
            fn to_value(&self) -> Option<$crate::attrs::AttrValue> {
                Some($crate::attrs::AttrValue::Str(self.text().into()))
            }
            fn from_value(value: Option<$crate::attrs::AttrValue>) -> Result<Self, String> {
                match value {
                    Some($crate::attrs::AttrValue::Str(s)) => $name::from_text(&s)
                        .ok_or_else(|| format!("{s:?} is not one of {}", [$($text),*].join(", "))),
                    Some(other) => Err(format!("{other} is not one of {}", [$($text),*].join(", "))),
                    None => Err(format!("one of {} is required", [$($text),*].join(", "))),
                }
            }
        }
    };
}

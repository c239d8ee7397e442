use super::*;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Tree {
    Constant(i64),
    Symbol(&'static str),
    Node(Operation, Box<Tree>, Box<Tree>),
}

#[derive(Clone, Copy, Debug)]
enum Operation {
    Add,
    Sub,
    Mul,
    Floor,
    Ceil,
    Rem,
    Max,
    Min,
}

const SYMBOLS: [&str; 4] = ["N", "H", "in put", "?K"];

impl Tree {
    fn build(&self) -> Dim {
        match self {
            Tree::Constant(value) => Dim::fixed(*value),
            Tree::Symbol(symbol) => Dim::symbol(*symbol),
            Tree::Node(operation, a, b) => {
                let (a, b) = (a.build(), b.build());
                match operation {
                    Operation::Add => a + b,
                    Operation::Sub => a - b,
                    Operation::Mul => a * b,
                    Operation::Floor => a.floor_div(&b),
                    Operation::Ceil => a.ceil_div(&b),
                    Operation::Rem => a.rem_floor(&b),
                    Operation::Max => Dim::maximum(&a, &b),
                    Operation::Min => Dim::minimum(&a, &b),
                }
            }
        }
    }

    fn eval(&self, bindings: &Bindings) -> Option<i128> {
        match self {
            Tree::Constant(value) => Some((*value).into()),
            Tree::Symbol(symbol) => bindings.get(*symbol).map(|value| (*value).into()),
            Tree::Node(operation, a, b) => {
                let (a, b) = (a.eval(bindings)?, b.eval(bindings)?);
                match operation {
                    Operation::Add => a.checked_add(b),
                    Operation::Sub => a.checked_sub(b),
                    Operation::Mul => a.checked_mul(b),
                    Operation::Floor => floor_quotient(a, b),
                    Operation::Ceil => floor_quotient(-a, b).map(|quotient| -quotient),
                    Operation::Rem => Some(a - b * floor_quotient(a, b)?),
                    Operation::Max => Some(a.max(b)),
                    Operation::Min => Some(a.min(b)),
                }
            }
        }
    }
}

fn trees() -> impl Strategy<Value = Tree> {
    let leaf =
        prop_oneof![(-6i64..=6).prop_map(Tree::Constant), prop::sample::select(&SYMBOLS[..]).prop_map(Tree::Symbol),];
    let operation = prop::sample::select(vec![
        Operation::Add,
        Operation::Sub,
        Operation::Mul,
        Operation::Floor,
        Operation::Ceil,
        Operation::Rem,
        Operation::Max,
        Operation::Min,
    ]);
    leaf.prop_recursive(5, 24, 2, move |inner| {
        (operation.clone(), inner.clone(), inner)
            .prop_map(|(operation, a, b)| Tree::Node(operation, a.into(), b.into()))
    })
}

fn bindings() -> impl Strategy<Value = Bindings> {
    prop::array::uniform4(prop_oneof![0i64..5, 0i64..200]).prop_map(|values| {
        let symbols = SYMBOLS.iter().zip(values);
        symbols.map(|(symbol, value)| ((*symbol).into(), value.max(minimum_of(symbol)))).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn simplification_keeps_values(tree in trees(), bindings in bindings()) {
        if let Some(expected) = tree.eval(&bindings) {
            match tree.build().eval(&bindings) {
                Ok(value) => prop_assert_eq!(i128::from(value), expected),
                Err(error) => prop_assert!(
                    tree.build().is_overflow() || i64::try_from(expected).is_err(),
                    "{} in {}", error, tree.build()
                ),
            }
        }
    }

    #[test]
    fn display_parses_back(tree in trees()) {
        let dim = tree.build();
        prop_assert_eq!(Dim::parse(&dim.to_string()), Ok(dim));
    }

    #[test]
    fn verdicts_hold(a in trees(), b in trees(), bindings in bindings(), bound in -9i64..9) {
        let (left, right) = (a.build(), b.build());
        let (Some(x), Some(y)) = (a.eval(&bindings), b.eval(&bindings)) else {
            return Ok(());
        };
        if let Some(verdict) = left.equals(&right) {
            prop_assert_eq!(verdict, x == y, "{} = {}", left, right);
        }
        if let Some(verdict) = left.at_least(bound) {
            prop_assert_eq!(verdict, x >= bound.into(), "{} >= {}", left, bound);
        }
        if let Some(verdict) = left.divisible_by(bound) {
            prop_assert_eq!(verdict, x % i128::from(bound) == 0, "{} % {}", left, bound);
        }
        prop_assert!(left.lower_bound().is_none_or(|lower| i128::from(lower) <= x), "{}", left);
        prop_assert!(left.upper_bound().is_none_or(|upper| i128::from(upper) >= x), "{}", left);
    }

    #[test]
    fn substitution_is_composition(
        tree in trees(), value in trees(), bindings in bindings(),
    ) {
        let (dim, value) = (tree.build(), value.build());
        let substituted = dim.substitute(&BTreeMap::from([("N".into(), value.clone())]));
        // Simplification relies on the symbol being positive.
        let Some(bound) = value.eval(&bindings).ok().filter(|bound| *bound >= 1) else {
            return Ok(());
        };
        let mut extended = bindings.clone();
        extended.insert("N".into(), bound);
        if let (Ok(a), Ok(b)) = (dim.eval(&extended), substituted.eval(&bindings)) {
            prop_assert_eq!(a, b, "{} in {}", value, dim);
        }
    }

    #[test]
    fn parsing_never_panics(text in "[-+*/(),'NK?0-9 ]{0,40}|(floor|max|mod|min|ceil|[(),/*+-]|N|0|3){0,30}") {
        if let Ok(dim) = Dim::parse(&text) {
            prop_assert_eq!(Dim::parse(&dim.to_string()), Ok(dim));
        }
    }
}

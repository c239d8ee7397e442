use super::*;

fn dim(text: &str) -> Dim {
    Dim::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[track_caller]
fn simplifies(text: &str, expected: &str) {
    assert_eq!(dim(text).to_string(), expected, "{text}");
    assert_eq!(dim(expected), dim(text), "{expected}");
}

#[test]
fn polynomials_are_canonical() {
    simplifies("1 + N + N", "2*N + 1");
    simplifies("(N + 1)*(N - 1)", "N*N - 1");
    simplifies("(N + M)*(N - M) + M*M - N*N", "0");
    simplifies("-N + 2", "-N + 2");
    assert_eq!(Dim::symbol("N") - 3 + 3, Dim::symbol("N"));
    assert_eq!(Dim::product([dim("N"), dim("3"), dim("2")]), dim("6*N"));
    assert_eq!(Dim::product(&[] as &[Dim]), Dim::fixed(1));
}

#[test]
fn quotients_simplify() {
    simplifies("floor((4*N + 2*M + 3)/2)", "M + 2*N + 1");
    simplifies("floor(N/1)", "N");
    simplifies("floor(N*C*H*W/(H*W))", "C*N");
    simplifies("floor(N*H*W/(2*H*W))", "floor(N/2)");
    simplifies("floor((N*H + N*W)/(H + W))", "floor((H*N + N*W)/(H + W))");
    simplifies("floor((6*H + 6*W)/(2*H + 2*W))", "3");
    simplifies("floor(floor(N/3)/4)", "floor(N/12)");
    simplifies("floor((floor((H - 1)/2) + 1 - 1)/2) + 1", "floor((H + 3)/4)");
    simplifies("floor((N - 2*floor(N/2))/2)", "0");
    simplifies("floor(1/(N + 1))", "0");
    simplifies("floor(N/'?K')", "floor(N/'?K')");
    simplifies("floor(N*'?K'/'?K')", "floor('?K'*N/'?K')");
    simplifies("floor(-7/2)", "-4");
    simplifies("ceil(-7/2)", "-3");
    simplifies("mod(2*N + 5, 2)", "1");
}

#[test]
fn roundings_up_and_down_coincide() {
    assert_eq!(dim("ceil(H/2)"), dim("floor((H - 1)/2) + 1"));
    assert_eq!(dim("-floor(-H/2)"), dim("ceil(H/2)"));
    assert_eq!(dim("floor(H/(-2))"), dim("-ceil(H/2)"));
}

#[test]
fn extrema_simplify() {
    simplifies("max(N, 1)", "N");
    simplifies("max('?K', 1)", "max(1, '?K')");
    simplifies("min(N + 1, N)", "N");
    simplifies("max(N, max(M, N))", "max(M, N)");
    simplifies("max(N)", "N");
    simplifies("max(0, min(N, 5))", "min(5, N)");
    let (a, b) = (dim("N"), dim("M"));
    assert_eq!(Ord::max(a.clone(), b.clone()), Dim::maximum(&a, &b));
    assert_eq!(Ord::min(a.clone(), b.clone()), Dim::minimum(&a, &b));
}

#[test]
fn comparisons_use_the_domain_of_symbols() {
    assert_eq!(dim("N").equals(&dim("N")), Some(true));
    assert_eq!(dim("N").equals(&dim("N + 1")), Some(false));
    assert_eq!(dim("N").equals(&dim("M")), None);
    assert_eq!(dim("N + M").equals(&dim("1")), Some(false));
    assert_eq!(dim("2*N").equals(&dim("2*M + 1")), Some(false));
    assert!(dim("floor((max(0, N - 2) + 1)/2)").has_extremum() && dim("N*min(N, 4) + 1").has_extremum());
    assert!(!dim("floor(N/2)*M").has_extremum() && !dim("max(N, 1)").has_extremum() && !dim("7").has_extremum());
    assert!(dim("2*N").never_equals(&dim("2*M + 1")) && dim("N + 1").never_equals(&dim("0")));
    assert!(
        !dim("3*N").never_equals(&dim("0"))
            && !dim("3*N").never_equals(&dim("6*N"))
            && !dim("N").never_equals(&dim("M"))
    );
    assert_eq!(dim("N").at_least(1), Some(true));
    assert_eq!(dim("N").at_least(2), None);
    assert_eq!(dim("'?K'").at_least(1), None);
    assert_eq!(dim("-N").at_least(0), Some(false));
    assert_eq!(dim("N*M - N").lower_bound(), Some(0));
    assert_eq!(dim("N - min(N, M)").lower_bound(), Some(0));
    assert_eq!(dim("mod(N, 4)").lower_bound(), Some(0));
    assert_eq!(dim("mod(N, 4)").upper_bound(), Some(3));
    assert_eq!(dim("N").upper_bound(), None);
    assert_eq!(dim("4*N + 2").divisible_by(2), Some(true));
    assert_eq!(dim("4*N + 2").divisible_by(4), Some(false));
    assert_eq!(dim("N").divisible_by(2), None);
    assert_eq!(dim("6").divisible_by(4), Some(false));
    assert_eq!(dim("6").divisible_by(0), None);
}

#[test]
fn evaluation_reports_failures() {
    let bindings = Bindings::from([("N".into(), 7)]);
    assert_eq!(dim("floor(N/2)*N").eval(&bindings), Ok(21));
    let unbound = DimError::UnboundSymbol("M".into());
    assert_eq!(dim("N + M").eval(&bindings), Err(unbound));
    for zero in ["floor(N/0)", "floor(5/0)", "mod(N, 0)", "floor(1/(N - 7))"] {
        assert_eq!(dim(zero).eval(&bindings), Err(DimError::DivisionByZero));
    }
    let large = Dim::fixed(i64::MAX) * dim("N");
    assert_eq!(large.eval(&bindings), Err(DimError::Overflow));
}

#[test]
fn overflow_absorbs_and_stays_distinct() {
    let overflow = Dim::fixed(i64::MAX) + 1;
    assert!(overflow.is_overflow());
    assert_eq!(overflow.eval(&Bindings::new()), Err(DimError::Overflow));
    assert_ne!(&overflow + 1, overflow);
    assert_ne!(&overflow - &overflow, Dim::fixed(0));
    assert!((&overflow * Dim::fixed(0)).is_overflow());
    assert!((dim("N") - &overflow).is_overflow());
    assert_eq!(overflow.equals(&Dim::fixed(1)), None);
    assert_eq!(dim(&overflow.to_string()), overflow);
    let mut product = dim("N + M + K + 1");
    for _ in 0..12 {
        product = &product * &product;
    }
    assert!(product.is_overflow());
    assert_eq!(dim(&product.to_string()), product);
    assert!(Dim::fixed(i64::MIN).floor_div(&Dim::fixed(-1)).is_overflow());
    assert!(dim("N").floor_div(&Dim::fixed(i64::MIN)).is_overflow());
}

#[test]
fn substitution_simplifies_again() {
    let values = BTreeMap::from([("N".into(), dim("2*M")), ("M".into(), dim("N"))]);
    assert_eq!(dim("floor(N/2) + M").substitute(&values), dim("M + N"));
    let values = BTreeMap::from([("N".into(), dim("9"))]);
    assert_eq!(dim("max(N, M)").substitute(&values), dim("max(9, M)"));
    assert_eq!(dim("floor(N/2)*N").substitute(&values), dim("36"));
    let symbols = dim("floor(N/M) + max(K, N) - N").symbols();
    assert_eq!(symbols, ["K", "M", "N"].map(Symbol::from).into());
}

#[test]
fn texts_round_trip() {
    for symbol in ["batch size", "it's", "a\\b", "", "7", "?K", "max", "é-1"] {
        let symbol = Dim::symbol(symbol);
        assert_eq!(dim(&symbol.to_string()), symbol);
    }
    assert_eq!(dim(&i64::MIN.to_string()), Dim::fixed(i64::MIN));
    let least = Dim::fixed(i64::MIN) * dim("N") + i64::MIN;
    assert_eq!(dim(&least.to_string()), least);
    let mut nested = dim("N");
    for divisor in 0..MAX_DEPTH {
        nested = (nested * 3 + i64::from(divisor % 2)).floor_div(&dim("M + 1"));
    }
    assert!(!nested.is_overflow());
    assert_eq!(dim(&nested.to_string()), nested);
}

#[test]
fn malformed_texts_are_errors() {
    for text in [
        "",
        "N +",
        "2 N",
        "(N",
        "N)",
        "floor(N)",
        "floor(N/)",
        "max()",
        "sin(N)",
        "'N",
        "N/2",
        "99999999999999999999",
        "overflow(N)",
        "mod(N)",
        "é",
        "'\\",
    ] {
        assert!(Dim::parse(text).is_err(), "{text}");
    }
    for open in ["(", "floor(", "max(", "-(", "floor(("] {
        assert!(Dim::parse(&open.repeat(10_000)).is_err());
    }
    assert!(Dim::parse(&"N".repeat(MAX_TEXT + 1)).is_err());
    let wide = (0..9_000).map(|i| format!("a{i}")).collect::<Vec<_>>();
    assert!(dim(&wide.join("+")).is_overflow());
    let hostile = ["max(", &wide.join(","), ")"].concat();
    assert!(Dim::parse(&hostile).is_ok());
    assert!(Dim::parse(&"(a+b+c+d)*".repeat(6_000)).is_err());
}

#[test]
fn element_counts_are_checked() {
    assert_eq!(element_count(&[]), Some(1));
    assert_eq!(element_count(&[2, 3]), Some(6));
    assert_eq!(element_count(&[usize::MAX, 2]), None);
    assert_eq!(element_count(&[usize::MAX, 2, 0]), Some(0));
}

//! [`Verdict`]: how a condition came out.

/// How a condition came out. A rule fires only if all its conditions hold.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// It holds, for all values of the symbols.
    Holds,
    /// It does not hold, and this is why.
    Fails(String),
    /// What is known does not decide it, and this is what is missing.
    Unknown(String),
}

impl Verdict {
    /// From a three-valued answer, with the sentence for the other two.
    pub fn from_answer(answer: Option<bool>, why: impl FnOnce() -> String) -> Verdict {
        match answer {
            Some(true) => Verdict::Holds,
            Some(false) => Verdict::Fails(why()),
            None => Verdict::Unknown(why()),
        }
    }
}

//! Choosing one alternative for each class so that the classes in use cost least, each paid once.
//!
//! Independent of the e-graph: a [`Problem`] is numbers only. A [`Selection`] counts for each class how many classes in use
//! need it, so that a swap costs what it touches, not the size of the whole.

/// Costs, in units of 1e-9 of the profile's. Sums of integers do not depend on their order.
pub(crate) type Cost = i128;

/// The largest cost of one alternative.
const MOST: Cost = 1 << 80;

/// A cost of the profile in [`Cost`]s.
pub(crate) fn cost_of(c: f64) -> Cost {
    // A float-to-integer cast saturates; what is no number costs nothing.
    ((c * 1e9).round() as Cost).clamp(0, MOST)
}

/// The cost in the profile's unit.
pub(crate) fn cost_in_unit(c: Cost) -> f64 {
    c as f64 / 1e9
}

/// One way to make a class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Alternative {
    /// What it costs by itself.
    pub(crate) cost: Cost,
    /// The classes it needs, ascending, each once.
    pub(crate) needs: Vec<usize>,
}

/// Classes and their alternatives.
#[derive(Debug, Clone, Default)]
pub(crate) struct Problem {
    /// The alternatives of each class.
    pub(crate) classes: Vec<Vec<Alternative>>,
    /// The class that is wanted.
    pub(crate) root: usize,
    /// For each class, which alternatives of which classes need it.
    users: Vec<Vec<(usize, usize)>>,
}

/// For each class, the number of the alternative that makes it; `None` where nothing can.
pub(crate) type Choice = Vec<Option<usize>>;

impl Problem {
    /// A problem. Classes that an alternative needs are numbers into `classes`.
    pub(crate) fn new(mut classes: Vec<Vec<Alternative>>, root: usize) -> Problem {
        let mut users = vec![Vec::new(); classes.len()];
        for (class, alternatives) in classes.iter_mut().enumerate() {
            for (i, alternative) in alternatives.iter_mut().enumerate() {
                alternative.needs.sort_unstable();
                alternative.needs.dedup();
                alternative.needs.iter().for_each(|&n| users[n].push((class, i)));
            }
        }
        Problem { classes, root, users }
    }

    /// Which alternatives of which classes need `class`.
    pub(crate) fn users(&self, class: usize) -> &[(usize, usize)] {
        &self.users[class]
    }

    /// For each class the alternative whose tree is cheapest by `price`, where the classes that `free` names cost nothing
    /// and keep their alternative of `kept`. The alternatives taken have no cycle if the kept ones have none.
    pub(crate) fn cheapest(
        &self,
        kept: &Choice,
        free: impl Fn(usize) -> bool,
        price: impl Fn(usize, usize) -> Cost,
    ) -> Choice {
        // Classes are settled in the order of their price, each behind all that its alternative needs.
        let mut choice: Choice = vec![None; self.classes.len()];
        let mut settled: Vec<Option<Cost>> = vec![None; self.classes.len()];
        let mut missing: Vec<Vec<usize>> =
            self.classes.iter().map(|c| c.iter().map(|a| a.needs.len()).collect()).collect();
        let mut queue = std::collections::BTreeSet::new();
        for (class, alternatives) in self.classes.iter().enumerate() {
            if free(class) {
                queue.insert((0, class, kept[class].unwrap_or(0)));
                continue;
            }
            for (i, _) in alternatives.iter().enumerate().filter(|(_, a)| a.needs.is_empty()) {
                queue.insert((price(class, i), class, i));
            }
        }
        while let Some((cost, class, i)) = queue.pop_first() {
            if settled[class].is_some() {
                continue;
            }
            settled[class] = Some(cost);
            choice[class] = Some(i);
            for &(user, k) in &self.users[class] {
                missing[user][k] -= 1;
                if missing[user][k] > 0 || settled[user].is_some() || free(user) {
                    continue;
                }
                let needs: Cost = self.classes[user][k]
                    .needs
                    .iter()
                    .fold(0, |sum: Cost, n| sum.saturating_add(settled[*n].unwrap_or(Cost::MAX)));
                queue.insert((needs.saturating_add(price(user, k)), user, k));
            }
        }
        choice
    }
}

/// A choice without cycles, and what is in use by it.
#[derive(Debug, Clone)]
pub(crate) struct Selection<'a> {
    pub(crate) problem: &'a Problem,
    choice: Choice,
    /// How many classes in use need each; the root is needed once more, and so is what is pinned.
    uses: Vec<usize>,
    total: Cost,
    /// The choices that were changed, as they were.
    changes: Vec<(usize, Option<usize>)>,
    visited: Vec<u64>,
    visit: u64,
    /// Swaps tried and taken, for tests that count work.
    pub(crate) moves: usize,
}

impl<'a> Selection<'a> {
    /// The selection of a choice that has no cycle and makes all that the root needs; `None` if it does not.
    pub(crate) fn new(problem: &'a Problem, choice: Choice) -> Option<Selection<'a>> {
        let n = problem.classes.len();
        let mut selection = Selection {
            problem,
            choice,
            uses: vec![0; n],
            total: 0,
            changes: Vec::new(),
            visited: vec![0; n],
            visit: 0,
            moves: 0,
        };
        let order = selection.in_order(problem.root);
        if !order.is_some_and(|o| o.iter().all(|c| selection.choice[*c].is_some())) {
            return None;
        }
        selection.pin(problem.root);
        Some(selection)
    }

    /// What is chosen for a class.
    pub(crate) fn chosen(&self, class: usize) -> Option<usize> {
        self.choice[class]
    }

    /// The whole choice.
    pub(crate) fn choice(&self) -> &Choice {
        &self.choice
    }

    /// Whether a class is in use.
    pub(crate) fn in_use(&self, class: usize) -> bool {
        self.uses[class] > 0
    }

    /// How many classes in use need a class, and how often it is pinned.
    pub(crate) fn uses(&self, class: usize) -> usize {
        self.uses[class]
    }

    /// The cost of all that is in use.
    pub(crate) fn total(&self) -> Cost {
        self.total
    }

    fn alternative(&self, class: usize) -> Option<&'a Alternative> {
        self.problem.classes[class].get(self.choice[class]?)
    }

    fn needs(&self, class: usize) -> &'a [usize] {
        self.alternative(class).map_or(&[], |a| &a.needs)
    }

    /// The classes below `from`, each behind what it needs; `None` if there is a cycle.
    fn in_order(&self, from: usize) -> Option<Vec<usize>> {
        let mut state = vec![0u8; self.problem.classes.len()];
        let mut order = Vec::new();
        let mut stack = vec![(from, false)];
        while let Some((class, leave)) = stack.pop() {
            if leave {
                state[class] = 2;
                order.push(class);
                continue;
            }
            match state[class] {
                0 => {
                    state[class] = 1;
                    stack.push((class, true));
                    for &n in self.needs(class) {
                        match state[n] {
                            0 => stack.push((n, false)),
                            1 => return None,
                            _ => {}
                        }
                    }
                }
                1 => return None,
                _ => {}
            }
        }
        Some(order)
    }

    /// The classes in use, each before what it needs where that can be told from the way down.
    pub(crate) fn used(&self) -> Vec<usize> {
        let mut order = self.in_order(self.problem.root).unwrap_or_default();
        order.reverse();
        order
    }

    /// Counts a use of a class, and of what it needs if that is the first.
    pub(crate) fn pin(&mut self, class: usize) {
        let mut stack = vec![class];
        while let Some(c) = stack.pop() {
            self.uses[c] += 1;
            if self.uses[c] == 1 {
                self.total += self.alternative(c).map_or(0, |a| a.cost);
                stack.extend(self.needs(c));
            }
        }
    }

    /// Takes back a use of a class, and of what it needs if that was the last.
    pub(crate) fn unpin(&mut self, class: usize) {
        let mut stack = vec![class];
        while let Some(c) = stack.pop() {
            self.uses[c] -= 1;
            if self.uses[c] == 0 {
                self.total -= self.alternative(c).map_or(0, |a| a.cost);
                stack.extend(self.needs(c));
            }
        }
    }

    fn exchange(&mut self, class: usize, to: Option<usize>) {
        if self.uses[class] == 0 {
            self.choice[class] = to;
            return;
        }
        let old = self.needs(class);
        self.total -= self.alternative(class).map_or(0, |a| a.cost);
        self.choice[class] = to;
        self.total += self.alternative(class).map_or(0, |a| a.cost);
        // What both need must not fall to 0 in between.
        self.needs(class).iter().for_each(|&n| self.pin(n));
        old.iter().for_each(|&n| self.unpin(n));
    }

    /// Takes alternative `to` for a class, whatever that costs. [`Selection::back`] undoes it. A cycle may come of it.
    pub(crate) fn swap(&mut self, class: usize, to: usize) {
        self.moves += 1;
        self.changes.push((class, self.choice[class]));
        self.exchange(class, Some(to));
    }

    /// As [`Selection::swap`], unless a cycle comes of it or something cannot be made. Returns whether it was done.
    pub(crate) fn swap_without_cycle(&mut self, class: usize, to: usize) -> bool {
        let mark = self.mark();
        self.swap(class, to);
        if self.has_cycle(class) {
            self.back(mark);
            return false;
        }
        true
    }

    /// A place to go back to.
    pub(crate) fn mark(&self) -> usize {
        self.changes.len()
    }

    /// Undoes all swaps since `mark`.
    pub(crate) fn back(&mut self, mark: usize) {
        while self.changes.len() > mark {
            if let Some((class, to)) = self.changes.pop() {
                self.exchange(class, to);
            }
        }
    }

    /// Whether a class needs itself, or something below it has no alternative.
    pub(crate) fn has_cycle(&mut self, class: usize) -> bool {
        self.visit += 1;
        let mut stack: Vec<usize> = self.needs(class).to_vec();
        while let Some(c) = stack.pop() {
            if c == class || self.choice[c].is_none() {
                return true;
            }
            if self.visited[c] != self.visit {
                self.visited[c] = self.visit;
                stack.extend(self.needs(c));
            }
        }
        false
    }

    /// For all classes that are not in use, takes what is cheapest beside those that are.
    pub(crate) fn refit(&mut self) {
        let problem = self.problem;
        let choice = problem.cheapest(&self.choice, |c| self.uses[c] > 0, |c, i| problem.classes[c][i].cost.max(0));
        for (class, to) in choice.into_iter().enumerate() {
            if self.uses[class] == 0 {
                self.choice[class] = to;
            }
        }
        self.changes.clear();
    }
}

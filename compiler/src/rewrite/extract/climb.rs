//! The search for a cheaper selection: single swaps and joint moves, until none pays. It never ends above its start.

use super::dag::{Cost, Selection};

/// How many classes that are not in use lie between a class and the one in use that could need it, at most.
const DEPTH: usize = 3;

/// Candidates of one joint move at most.
const WIDTH: usize = 64;

/// Lowers the cost of a selection. The order of moves and the way ties go depend on the numbering of the problem alone.
pub(crate) fn climb(selection: &mut Selection<'_>) {
    loop {
        let before = selection.total();
        selection.refit();
        while single(selection) {}
        joint(selection);
        // The cheap moves first: the deep ones may lead past what they find.
        let shallow = selection.total();
        evict(selection, 1);
        if selection.total() >= shallow {
            evict(selection, DEPTH);
        }
        if selection.total() >= before {
            return;
        }
    }
}

/// Tries for every class in use all its alternatives and takes the best. Returns whether any was better.
fn single(selection: &mut Selection<'_>) -> bool {
    let before = selection.total();
    for class in selection.used() {
        // An earlier swap may have put it out of use.
        if !selection.in_use(class) {
            continue;
        }
        let mark = selection.mark();
        let mut best: Option<(Cost, usize)> = None;
        for to in 0..selection.problem.classes[class].len() {
            if selection.chosen(class) == Some(to) {
                continue;
            }
            let start = selection.total();
            selection.swap(class, to);
            let total = selection.total();
            if total < best.map_or(start, |b| b.0) && !selection.has_cycle(class) {
                best = Some((total, to));
            }
            selection.back(mark);
        }
        if let Some((_, to)) = best {
            selection.swap(class, to);
        }
    }
    selection.total() < before
}

/// A way for a class in use to need another: the alternatives to take, the last one by the class in use.
type Way = Vec<(usize, usize)>;

/// Tries for every class that is not in use to let all classes need it that could: a merged convolution pays only once
/// several of the values that are slices of it are taken from there.
fn joint(selection: &mut Selection<'_>) {
    for class in 0..selection.problem.classes.len() {
        if selection.in_use(class) || selection.chosen(class).is_none() {
            continue;
        }
        let ways = ways(selection, class);
        let mut users: Vec<usize> = ways.iter().filter_map(|w| w.last().map(|l| l.0)).collect();
        users.dedup();
        if users.len() < 2 {
            continue;
        }
        let (start, mark) = (selection.total(), selection.mark());
        selection.pin(class);
        let mut again = true;
        while std::mem::take(&mut again) {
            for way in &ways {
                again |= take(selection, way);
            }
        }
        selection.unpin(class);
        if selection.total() >= start {
            selection.back(mark);
        }
    }
}

/// Tries for every class that several classes in use need to let all of them do without it: one reader of a convolution may
/// have taken in the BatchNormalization that another reader still needs, and folding it into the convolution pays only once
/// nothing reads that as it was. What cannot do without it may go unread itself, `depth` classes deep.
fn evict(selection: &mut Selection<'_>, depth: usize) {
    for class in selection.used() {
        if !selection.in_use(class) || readers(selection, class).len() < 2 {
            continue;
        }
        let (start, mark) = (selection.total(), selection.mark());
        if !unread(selection, class, depth, depth > 1) || selection.total() >= start {
            selection.back(mark);
        }
    }
}

/// The classes in use that need `class` as they are chosen.
fn readers(selection: &Selection<'_>, class: usize) -> Vec<usize> {
    let needs = |(user, i): &&(usize, usize)| selection.in_use(*user) && selection.chosen(*user) == Some(*i);
    let mut users: Vec<usize> = selection.problem.users(class).iter().filter(needs).map(|u| u.0).collect();
    users.dedup();
    users
}

/// Lets all that need `class` do without it, `wholly` if nothing that they need instead may need it in turn. Returns whether
/// each has a way to.
fn unread(selection: &mut Selection<'_>, class: usize, depth: usize, wholly: bool) -> bool {
    let mut users = readers(selection, class);
    if users.len() > 1 {
        let mut place = vec![0; selection.problem.classes.len()];
        selection.used().iter().enumerate().for_each(|(i, class)| place[*class] = i);
        // What others may be made of goes first.
        users.sort_by_key(|user| std::cmp::Reverse(place[*user]));
    }
    users.into_iter().all(|user| without(selection, user, class, depth, wholly))
}

/// Lets `user` do without `class` for the least cost: by another of its alternatives, or since nothing needs `user` itself any
/// more, as a view between a BatchNormalization and the product that takes it in. Returns whether there is a way.
fn without(selection: &mut Selection<'_>, user: usize, class: usize, depth: usize, wholly: bool) -> bool {
    if !selection.in_use(user) {
        return true;
    }
    let uses = selection.uses(class);
    let mut best: Option<(Cost, Option<usize>)> = None;
    let mut offer = |selection: &Selection<'_>, to: Option<usize>| {
        if (!wholly || selection.uses(class) < uses) && best.is_none_or(|b| selection.total() < b.0) {
            best = Some((selection.total(), to));
        }
    };
    for (to, alternative) in selection.problem.classes[user].iter().enumerate() {
        if alternative.needs.contains(&class) {
            continue;
        }
        let mark = selection.mark();
        if selection.swap_without_cycle(user, to) {
            offer(selection, Some(to));
        }
        selection.back(mark);
    }
    if depth > 1 {
        let mark = selection.mark();
        if unread(selection, user, depth - 1, true) {
            offer(selection, None);
        }
        selection.back(mark);
    }
    match best {
        Some((_, Some(to))) => selection.swap_without_cycle(user, to),
        Some((_, None)) => unread(selection, user, depth - 1, true),
        None => false,
    }
}

/// Takes a way if it lowers the cost. Returns whether it did.
fn take(selection: &mut Selection<'_>, way: &Way) -> bool {
    let (start, mark) = (selection.total(), selection.mark());
    let Some((last, between)) = way.split_last() else { return false };
    let free = between.iter().all(|(c, _)| !selection.in_use(*c));
    if selection.in_use(last.0) && free {
        let done = way.iter().all(|&(c, i)| selection.chosen(c) == Some(i) || selection.swap_without_cycle(c, i));
        if done && selection.total() < start {
            return true;
        }
    }
    selection.back(mark);
    false
}

/// The ways for classes in use to need `class`, nearest first.
fn ways(selection: &Selection<'_>, class: usize) -> Vec<Way> {
    let mut found: Vec<Way> = Vec::new();
    let mut seen = std::collections::BTreeSet::from([class]);
    let mut level: Vec<(usize, Way)> = vec![(class, Vec::new())];
    for _ in 0..DEPTH {
        for (at, way) in std::mem::take(&mut level) {
            for &(user, i) in selection.problem.users(at) {
                let way = || way.iter().copied().chain([(user, i)]).collect::<Way>();
                if selection.in_use(user) {
                    if selection.chosen(user) != Some(i) {
                        found.push(way());
                    }
                } else if seen.insert(user) {
                    level.push((user, way()));
                }
                if found.len() >= WIDTH {
                    break;
                }
            }
        }
    }
    found.sort_by_key(|w| (w.len(), w.last().copied()));
    found.truncate(WIDTH);
    found
}

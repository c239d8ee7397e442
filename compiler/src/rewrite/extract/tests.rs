//! Extraction against all choices, against an integer programme, and on the regions of real models.

use good_lp::{Expression, Solution, SolverModel, Variable, constraint, microlp, variable, variables};

use super::{
    Classes,
    climb::climb,
    dag::{Alternative, Choice, Cost, Problem, Selection},
};

fn alternative(cost: Cost, needs: &[usize]) -> Alternative {
    Alternative { cost, needs: needs.to_vec() }
}

/// The cost of a choice, added up from nothing; `None` if it has a cycle.
fn cost(problem: &Problem, choice: &Choice) -> Option<Cost> {
    fn go(
        problem: &Problem,
        choice: &Choice,
        class: usize,
        path: &mut Vec<usize>,
        paid: &mut Vec<usize>,
    ) -> Option<()> {
        if path.contains(&class) {
            return None;
        }
        if paid.contains(&class) {
            return Some(());
        }
        path.push(class);
        for &n in &problem.classes[class][choice[class]?].needs {
            go(problem, choice, n, path, paid)?;
        }
        path.pop();
        paid.push(class);
        Some(())
    }
    let mut paid = Vec::new();
    go(problem, choice, problem.root, &mut Vec::new(), &mut paid)?;
    Some(paid.into_iter().map(|c| choice[c].map_or(0, |i| problem.classes[c][i].cost)).sum())
}

/// The least cost of all choices.
fn least(problem: &Problem) -> Option<Cost> {
    let mut choice: Choice = vec![Some(0); problem.classes.len()];
    let mut best = None;
    loop {
        if let Some(c) = cost(problem, &choice) {
            best = Some(best.map_or(c, |b: Cost| b.min(c)));
        }
        // The next choice, as a number whose digits have different bases.
        let Some(at) = (0..choice.len()).find(|&c| choice[c].is_some_and(|i| i + 1 < problem.classes[c].len())) else {
            return best;
        };
        choice[..at].fill(Some(0));
        choice[at] = choice[at].map(|i| i + 1);
    }
}

/// The least cost by an integer programme: which alternatives are taken, which classes are in use, and an order of them.
fn programme(problem: &Problem) -> Option<f64> {
    let n = problem.classes.len();
    let mut vars = variables!();
    let used: Vec<Variable> = (0..n).map(|_| vars.add(variable().min(0).max(1))).collect();
    let taken: Vec<Vec<Variable>> =
        problem.classes.iter().map(|c| c.iter().map(|_| vars.add(variable().binary())).collect()).collect();
    let cyclic = on_cycles(problem);
    let rank: Vec<Variable> = (0..n).map(|_| vars.add(variable().min(0).max(n as f64))).collect();
    let mut total = Expression::from(0);
    for (c, alternatives) in problem.classes.iter().enumerate() {
        for (i, a) in alternatives.iter().enumerate() {
            total += taken[c][i] * (a.cost as f64 / 1e9);
        }
    }
    let mut model = vars.minimise(&total).using(microlp).with(constraint!(used[problem.root] == 1));
    for (c, alternatives) in problem.classes.iter().enumerate() {
        let sum: Expression = taken[c].iter().sum();
        model = model.with(constraint!(sum == used[c]));
        for (i, a) in alternatives.iter().enumerate() {
            for &need in &a.needs {
                model = model.with(constraint!(taken[c][i] <= used[need]));
                if cyclic[c].is_some() && cyclic[c] == cyclic[need] {
                    let n = n as f64;
                    model = model.with(constraint!(rank[need] + 1 <= rank[c] + (n + 1.0) * (1 - taken[c][i])));
                }
            }
        }
    }
    let solution = model.solve().ok()?;
    Some(solution.eval(&total))
}

/// For each class that can lie on a cycle, a number that all classes of the cycle share.
fn on_cycles(problem: &Problem) -> Vec<Option<usize>> {
    let n = problem.classes.len();
    let reach: Vec<Vec<bool>> = (0..n)
        .map(|from| {
            let mut seen = vec![false; n];
            let mut stack = vec![from];
            while let Some(c) = stack.pop() {
                for &need in problem.classes[c].iter().flat_map(|a| &a.needs) {
                    if !std::mem::replace(&mut seen[need], true) {
                        stack.push(need);
                    }
                }
            }
            seen
        })
        .collect();
    (0..n).map(|c| (0..n).find(|&d| reach[c][d] && reach[d][c])).collect()
}

fn climbed(problem: &Problem, start: Choice) -> (Cost, Choice) {
    let mut selection = Selection::new(problem, start).expect("the start has no cycle");
    climb(&mut selection);
    assert_eq!(cost(problem, selection.choice()), Some(selection.total()), "the running total is the cost");
    (selection.total(), selection.choice().clone())
}

fn cheapest_trees(problem: &Problem) -> Choice {
    problem.cheapest(&vec![None; problem.classes.len()], |_| false, |c, i| problem.classes[c][i].cost)
}

/// A = {x, f(B)}, B = {g(A)}, B is wanted: the search for cycles that begins at A must not rule out g(A).
#[test]
fn a_cycle_through_the_root_is_avoided() {
    let problem = Problem::new(
        vec![vec![alternative(5, &[2]), alternative(1, &[1])], vec![alternative(1, &[0])], vec![alternative(1, &[])]],
        1,
    );
    let (total, choice) = climbed(&problem, vec![Some(0), Some(0), Some(0)]);
    assert_eq!((total, choice[0]), (7, Some(0)));
    assert_eq!(programme(&problem).map(|c| (c * 1e9).round()), Some(7.0));
    assert!(Selection::new(&problem, vec![Some(1), Some(0), Some(0)]).is_none(), "f(g(f(..))) is no term");
}

/// Three values are convolutions of one input; slices of a wide one pay only together.
#[test]
fn siblings_are_merged_together() {
    let mut classes = vec![vec![alternative(0, &[])], vec![alternative(15, &[0])]];
    classes.extend((0..3).map(|_| vec![alternative(10, &[0]), alternative(1, &[1])]));
    classes.push(vec![alternative(0, &[2, 3, 4])]);
    let problem = Problem::new(classes, 5);
    let start = vec![Some(0); 6];
    assert_eq!(climbed(&problem, start).0, 18);
}

/// The same with another operator between each slice and its value.
#[test]
fn merges_are_found_behind_other_operators() {
    let mut classes = vec![vec![alternative(0, &[])], vec![alternative(15, &[0])]];
    classes.extend((0..3).map(|_| vec![alternative(20, &[0]), alternative(1, &[1])]));
    classes.extend((0..3).map(|i| vec![alternative(10, &[0]), alternative(1, &[2 + i])]));
    classes.push(vec![alternative(0, &[5, 6, 7])]);
    let problem = Problem::new(classes, 8);
    let start = vec![Some(0); 9];
    assert_eq!(climbed(&problem, start).0, 21);
}

/// A value of 1 has two readers, each with its own way to take in what stands between, and a way to make what stands between
/// without the value: it pays only if both go there.
#[test]
fn a_shared_value_is_left_by_all_its_readers_at_once() {
    let classes = vec![
        vec![alternative(0, &[])],
        vec![alternative(10, &[0])],
        vec![alternative(2, &[1]), alternative(11, &[0])],
        vec![alternative(5, &[2]), alternative(5, &[1])],
        vec![alternative(0, &[2, 3])],
    ];
    let problem = Problem::new(classes, 4);
    let start = vec![Some(0), Some(0), Some(0), Some(1), Some(0)];
    assert_eq!(climbed(&problem, start).0, 16);
}

struct Rng(u64);

impl Rng {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % n as u64) as usize
    }
}

/// A problem whose first alternatives have no cycle; others may.
fn random(rng: &mut Rng, classes: usize) -> Problem {
    let make = |rng: &mut Rng, class: usize| {
        (0..1 + rng.below(3))
            .map(|i| {
                let reach = if i == 0 { class } else { classes };
                let needs = if reach == 0 { Vec::new() } else { (0..rng.below(3)).map(|_| rng.below(reach)).collect() };
                Alternative { cost: [0, 1, 1, 2, 5, 10, 25][rng.below(7)], needs }
            })
            .collect()
    };
    Problem::new((0..classes).map(|c| make(rng, c)).collect(), classes - 1)
}

#[test]
fn random_problems_are_solved_well() {
    let (mut best, mut all) = (0, 0);
    for seed in 0..400 {
        let problem = random(&mut Rng(seed), 3 + seed as usize % 6);
        let start = vec![Some(0); problem.classes.len()];
        let before = cost(&problem, &start).expect("the start has no cycle");
        let least = least(&problem).expect("there is a choice");
        let (total, choice) = climbed(&problem, start.clone());
        assert!(least <= total && total <= before, "seed {seed}: {least} {total} {before}");
        assert_eq!(climbed(&problem, start), (total, choice), "seed {seed}");
        if seed % 8 == 0 {
            let bound = programme(&problem).map(|c| (c * 1e9).round() as Cost);
            assert_eq!(bound, Some(least), "seed {seed}");
        }
        all += 1;
        best += i32::from(total == least);
        assert!(cost(&problem, &cheapest_trees(&problem)).is_some(), "seed {seed}");
    }
    assert!(best * 100 >= all * 95, "the least cost is found in {best} of {all} problems");
}

/// Undoing swaps restores counts and costs, cycles or not.
#[test]
fn swaps_are_undone() {
    for seed in 0..200 {
        let mut rng = Rng(seed + 7777);
        let problem = random(&mut rng, 8);
        let start = vec![Some(0); 8];
        let mut selection = Selection::new(&problem, start.clone()).expect("the start has no cycle");
        let total = selection.total();
        for _ in 0..20 {
            let used = selection.used();
            let class = used[rng.below(used.len())];
            let to = rng.below(problem.classes[class].len());
            selection.swap(class, to);
            if selection.has_cycle(class) {
                selection.back(selection.mark() - 1);
            } else {
                assert_eq!(cost(&problem, selection.choice()), Some(selection.total()), "seed {seed}");
            }
        }
        selection.back(0);
        assert_eq!((selection.total(), selection.choice()), (total, &start), "seed {seed}");
    }
}

mod models {
    use std::path::PathBuf;

    use egg::RecExpr;

    use super::{super::NodeCost, *};
    use crate::{
        ir::Graph,
        rewrite::{
            Options,
            cost::{Pricing, term_cost},
            engine::Engine,
            explore::surface,
            language::{Graph as EGraph, Node},
            region,
            rule::Phase,
            saturate, selected_rules, settle,
        },
    };

    /// Calls `visit` with each saturated region of a graph, its original term and the price of a node.
    fn saturated_regions(graph: Graph, visit: &mut dyn FnMut(&EGraph, &RecExpr<Node>, NodeCost<'_>)) {
        let options = Options::default();
        let rules = selected_rules(&options).expect("all rules");
        let of_phase = |phase: Phase| rules.iter().copied().filter(|r| r.phase == phase).collect::<Vec<_>>();
        let (normalising, exploring) = (of_phase(Phase::Normalise), of_phase(Phase::Explore));
        let mut engine = Engine::new(graph);
        settle(&mut engine, &normalising, &options, 0).expect("the model is sound");
        let pricing = Pricing::new(&options);
        let price = |egraph: &EGraph, id: egg::Id, node: &Node| term_cost(egraph, id, node, &pricing);
        for region in region::regions(&engine, options.region_cap) {
            let Some(surface) = surface(&mut engine, &region) else { continue };
            let (roots, leaves) = (&surface.root_terms, &surface.leaves);
            let s = saturate::saturate(&engine.terms, roots, leaves, &exploring, options.saturation, None);
            visit(&s.runner.egraph, &s.before, &price);
        }
    }

    /// A problem, what it costs and what the climb makes of it, for `tests/networks/extraction.py`: all costs are integers.
    fn written(problem: &Problem, before: Cost, found: Cost) -> String {
        let alternative = |a: &Alternative| format!("[{},{:?}]", a.cost, a.needs);
        let class = |c: &Vec<Alternative>| format!("[{}]", c.iter().map(alternative).collect::<Vec<_>>().join(","));
        let classes: Vec<String> = problem.classes.iter().map(class).collect();
        let (root, classes) = (problem.root, classes.join(",\n"));
        format!("{{\"root\":{root},\"before\":{before},\"found\":{found},\"classes\":[\n{classes}]}}\n")
    }

    fn samples() -> Vec<PathBuf> {
        let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../samples/models");
        let mut files: Vec<PathBuf> =
            std::fs::read_dir(dir).expect("there are samples").flatten().map(|e| e.path()).collect();
        files.retain(|p| p.extension().is_some_and(|e| e == "onnx"));
        files.sort();
        files
    }

    /// Every region of every sample costs what an integer programme proves to be the least.
    ///
    /// With `CONVC_REGIONS_OF`, paths of models between colons, it takes those instead, and with `CONVC_REGIONS_TO` it writes
    /// each distinct problem into that folder: larger ones are for a solver that states its bound.
    #[test]
    fn regions_of_the_samples_cost_least() {
        let given = std::env::var_os("CONVC_REGIONS_OF");
        let files = given.as_ref().map_or_else(samples, |paths| std::env::split_paths(paths).collect());
        let folder = std::env::var_os("CONVC_REGIONS_TO").map(PathBuf::from);
        let mut seen = std::collections::BTreeSet::new();
        let mut solved = 0;
        for file in files {
            let graph = crate::onnx::import(&file, &crate::onnx::Limits::default()).expect("a model").graph;
            saturated_regions(graph, &mut |egraph, before, price| {
                let classes = Classes::new(egraph, before, price).expect("the region is in its graph");
                let (total, _) = climbed(&classes.problem, classes.start.clone());
                assert!(total <= classes.before, "{}", file.display());
                let nodes: usize = classes.problem.classes.iter().map(Vec::len).sum();
                if let Some(folder) = &folder {
                    let text = written(&classes.problem, classes.before, total);
                    if seen.insert(text.clone()) {
                        let stem = file.file_stem().unwrap_or_default().to_string_lossy();
                        let path = folder.join(format!("{stem}.{}.json", seen.len()));
                        std::fs::write(&path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
                    }
                    return;
                }
                if nodes > 400 {
                    return;
                }
                let bound = programme(&classes.problem).expect("the programme is solved");
                let total = total as f64 / 1e9;
                assert!((total - bound).abs() <= 1e-6 * bound.max(1.0), "{}: {total} > {bound}", file.display());
                solved += 1;
            });
        }
        assert!(solved >= 28 || given.is_some() || folder.is_some(), "{solved} regions");
    }
}

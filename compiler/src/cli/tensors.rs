//! Input tensors: from files, or made up from a seed.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use clap::Args;
use convc::{
    npz::{self, NpzError},
    verify::inputs::{Integers, random},
};
use convc_runtime::{Bindings, DType, Dim, Tensor, dim::element_count, plan::Port};

use super::{Failure, Say, model::describe};

/// Where inputs come from.
#[derive(Args)]
pub(crate) struct InputArgs {
    /// Inputs from a .npz file whose keys are their names
    #[arg(long, value_name = "FILE")]
    inputs: Option<PathBuf>,
    /// One input from a file: .npy, .npz (the array of that name, or the only one), .png or .jpg (scaled to 0..1)
    #[arg(long = "input", value_name = "NAME=FILE", value_parser = parse_input)]
    single: Vec<(String, PathBuf)>,
    /// Subtracted from each channel of an image
    #[arg(long, value_name = "M,..", value_delimiter = ',', requires = "single")]
    mean: Vec<f32>,
    /// Divides each channel of an image afterwards
    #[arg(long, value_name = "S,..", value_delimiter = ',', requires = "single")]
    std: Vec<f32>,
}

fn parse_input(text: &str) -> Result<(String, PathBuf), String> {
    let (name, file) = text.split_once('=').ok_or("it lacks an = between name and file")?;
    Ok((name.to_owned(), file.into()))
}

pub(crate) fn npz_failure(e: NpzError) -> Failure {
    match e {
        NpzError::Io { path, source } => Failure::io(&path, &source),
        NpzError::TooLarge { .. } => Failure::limit(e),
        NpzError::Tensor(_) => Failure::internal(e),
        e => Failure::usage(e),
    }
}

impl InputArgs {
    /// The inputs given, each one of `ports`.
    pub(crate) fn load(&self, ports: &[Port]) -> Result<BTreeMap<String, Tensor>, Failure> {
        let port = |name: &str| {
            let found = ports.iter().find(|p| p.name == name);
            found.ok_or_else(|| Failure::unknown("input", name, ports.iter().map(|p| p.name.as_str())))
        };
        let mut tensors = BTreeMap::new();
        if let Some(path) = &self.inputs {
            for (name, tensor) in npz::read_npz(path).map_err(npz_failure)? {
                port(&name)?;
                tensors.insert(name, tensor);
            }
        }
        for (name, path) in &self.single {
            tensors.insert(name.clone(), self.single(port(name)?, path)?);
        }
        Ok(tensors)
    }

    fn single(&self, port: &Port, path: &Path) -> Result<Tensor, Failure> {
        let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase());
        match extension.as_deref() {
            Some("npy") => npz::read_npy(path).map_err(npz_failure),
            Some("npz") => {
                let mut arrays = npz::read_npz(path).map_err(npz_failure)?;
                if arrays.len() == 1 {
                    return Ok(arrays.swap_remove(0).1);
                }
                let found = arrays.iter().position(|(n, _)| *n == port.name);
                let names = || arrays.iter().map(|(n, _)| n.as_str());
                match found {
                    Some(i) => Ok(arrays.swap_remove(i).1),
                    None => Err(Failure::unknown(&format!("array in {}", path.display()), &port.name, names())),
                }
            }
            Some("png" | "jpg" | "jpeg") => self.image(port, path),
            _ => Err(Failure::usage(format!("{}: what it holds is not known", path.display()))
                .help("give a .npy, .npz, .png or .jpg file")),
        }
    }

    fn image(&self, port: &Port, path: &Path) -> Result<Tensor, Failure> {
        let misfit = |problem: String| Failure::usage(format!("{}: {problem}", path.display()));
        let declared = || describe(port.dtype, port.shape.as_deref());
        let Some(shape) = port.shape.as_deref().filter(|s| s.len() == 3 || s.len() == 4) else {
            return Err(misfit(format!("input {:?} is {}, which is no image", port.name, declared())));
        };
        let axes = &shape[shape.len() - 3..];
        let channels = |d: &Dim| d.as_fixed().filter(|c| matches!(c, 1 | 3));
        let (c, first) = match (channels(&axes[0]), channels(&axes[2])) {
            (Some(c), _) => (c, true),
            (None, Some(c)) => (c, false),
            _ => return Err(misfit(format!("input {:?} is {}, which is no image", port.name, declared()))),
        };
        let c = if c == 1 { 1 } else { 3 };
        for (name, values) in [("--mean", &self.mean), ("--std", &self.std)] {
            if values.len() > 1 && values.len() != c {
                return Err(Failure::usage(format!("{name} has {} values for {c} channels", values.len())));
            }
        }
        let image = image::ImageReader::open(path)
            .map_err(|e| Failure::io(path, &e))?
            .with_guessed_format()
            .map_err(|e| Failure::io(path, &e))?
            .decode()
            .map_err(|e| misfit(e.to_string()))?;
        let (height, width) = (image.height() as usize, image.width() as usize);
        let (h_axis, w_axis) = if first { (1, 2) } else { (0, 1) };
        for (axis, size, what) in [(h_axis, height, "high"), (w_axis, width, "wide")] {
            if axes[axis].as_fixed().is_some_and(|n| n != size as i64) {
                return Err(misfit(format!(
                    "the image is {size} pixels {what}, input {:?} is {}",
                    port.name,
                    declared()
                ))
                .help("images are not resized; scale it first"));
            }
        }
        let pixels = if c == 1 { image.into_luma8().into_raw() } else { image.into_rgb8().into_raw() };
        let at = |i: usize| {
            // Where element i of the tensor lies in the rows of pixels.
            if first { (i % (height * width)) * c + i / (height * width) } else { i }
        };
        let mut sizes = if first { vec![c, height, width] } else { vec![height, width, c] };
        if shape.len() == 4 {
            sizes.insert(0, 1);
        }
        let bytes = (0..pixels.len()).map(|i| pixels[at(i)]);
        if port.dtype == DType::U8 {
            return Tensor::new(sizes, bytes.collect::<Vec<u8>>()).map_err(Failure::internal);
        }
        let pick = |values: &[f32], channel: usize, otherwise: f32| match values {
            [] => otherwise,
            [one] => *one,
            many => many[channel],
        };
        let values = (0..pixels.len()).map(|i| {
            let channel = at(i) % c;
            (f32::from(pixels[at(i)]) / 255.0 - pick(&self.mean, channel, 0.0)) / pick(&self.std, channel, 1.0)
        });
        let tensor = Tensor::new(sizes, values.collect::<Vec<f32>>()).map_err(Failure::internal)?;
        Ok(tensor.rounded_to(port.dtype))
    }
}

/// Makes up the inputs that are not in `given`: floating-point elements from the standard normal distribution, booleans
/// by chance, integers 0. The same seed gives the same tensors. A first size that nothing fixes is 1.
pub(crate) fn made_up(
    ports: &[Port],
    given: BTreeMap<String, Tensor>,
    bindings: &Bindings,
    unranked: &BTreeMap<String, Vec<i64>>,
    seed: u64,
    say: Say,
) -> Result<BTreeMap<String, Tensor>, Failure> {
    let mut bindings = bindings.clone();
    for (port, tensor) in ports.iter().filter_map(|p| Some((p, given.get(&p.name)?))) {
        for (d, &size) in port.shape.iter().flatten().zip(tensor.shape()) {
            if let Some(symbol) = d.as_symbol() {
                bindings.entry(symbol.clone()).or_insert(size as i64);
            }
        }
    }
    let mut tensors = given;
    for (i, port) in ports.iter().enumerate() {
        if tensors.contains_key(&port.name) || port.default.is_some() {
            continue;
        }
        let shape = match (&port.shape, unranked.get(&port.name)) {
            (Some(shape), _) => {
                if let Some(symbol) = shape.first().and_then(Dim::as_symbol)
                    && !bindings.contains_key(symbol)
                {
                    say.note(&format!("{symbol} is taken as 1; --dim {symbol}=N says otherwise"));
                    bindings.insert(symbol.clone(), 1);
                }
                shape.iter().map(|d| d.eval(&bindings)).collect::<Result<Vec<i64>, _>>().map_err(|e| {
                    Failure::usage(format!("input {:?} is {}: {e}", port.name, describe(port.dtype, Some(shape))))
                        .help(format!("give its sizes, such as --shape '{}:1,3,224,224'", port.name))
                })?
            }
            (None, Some(sizes)) => sizes.clone(),
            (None, None) => {
                return Err(Failure::usage(format!("the rank of input {:?} is not known", port.name))
                    .help(format!("give its sizes, such as --shape '{}:1,3,224,224'", port.name)));
            }
        };
        let shape: Option<Vec<usize>> = shape.iter().map(|&d| usize::try_from(d).ok()).collect();
        let shape = shape.filter(|s| element_count(s).is_some_and(|n| n <= 1 << 31));
        let Some(shape) = shape else {
            return Err(Failure::limit(format!("input {:?} would have more than {} elements", port.name, 1u64 << 31)));
        };
        let tensor = random(port.dtype, &shape, Integers::Zero, (seed, i as u64), false);
        let tensor =
            tensor.ok_or_else(|| Failure::model(format!("inputs of type {} cannot be made up", port.dtype)))?;
        tensors.insert(port.name.clone(), tensor);
    }
    Ok(tensors)
}

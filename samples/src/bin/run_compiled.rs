//! Runs a compiled model with the runtime crate alone: no ONNX, no compiler.
//!
//! ```sh
//! convc compile samples/models/repvgg.onnx -o repvgg.convc
//! cargo run --release -p convc-samples --bin run_compiled -- repvgg.convc
//! ```

use std::{collections::BTreeMap, error::Error, path::PathBuf, sync::Arc};

use convc_runtime::{
    Tensor,
    plan::{Plan, Port},
    session::{Session, SessionOptions},
};
use convc_samples::wave;

fn main() -> Result<(), Box<dyn Error>> {
    let path = PathBuf::from(std::env::args_os().nth(1).ok_or("usage: run_compiled MODEL.convc")?);

    // The file is mapped and proved; its constants stay in it until the session loads them.
    let plan = Arc::new(Plan::load(&path)?);
    let session = Session::new(Arc::clone(&plan), SessionOptions { threads: 2, ..SessionOptions::default() })?;

    // A session may run any number of times, with other sizes each time where the model leaves them open.
    let made = |p: &Port| Some((p.name.clone(), wave(p.dtype, p.shape.as_deref()?)?));
    let inputs: BTreeMap<String, Tensor> = plan.inputs.iter().filter_map(made).collect();
    for (port, tensor) in plan.outputs.iter().zip(session.run(&inputs)?) {
        println!("{}: {}{:?}", port.name, tensor.dtype(), tensor.shape());
        if let Some(elements) = tensor.as_slice::<f32>() {
            println!("  {:.4?}", &elements[..elements.len().min(10)]);
        }
    }
    Ok(())
}

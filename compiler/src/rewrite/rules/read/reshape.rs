//! Views: operators that keep the elements in their order and change only the shape.

use crate::rewrite::view::App;

/// The operators that are views.
pub(in crate::rewrite) const VIEWS: &[&str] = &["Reshape", "Flatten", "Squeeze", "Unsqueeze"];

/// Whether an application is a view.
pub(in crate::rewrite) fn is_view(app: &App<'_>) -> bool {
    VIEWS.contains(&app.op.name())
}

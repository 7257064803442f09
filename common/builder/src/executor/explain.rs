//! Explains a build as commands that a person would type.

use operation::words;

use super::{Options, contexts, equivalent::Known, input::Input};
use crate::{
    arguments::Global,
    dockerfile::Dockerfile,
    error::Error,
    plan::{self, Origin, PlanError},
};

/// The steps of a build, one line each. Runs nothing, and does not look for images.
///
/// # Errors
/// When the Dockerfile cannot be read, or its stages do not fit together.
pub fn explain(options: &Options) -> Result<Vec<String>, Error> {
    let input = Input::read(options)?;
    input.work(options, |file| lines(options, &input.name, &file))
}

fn lines(options: &Options, name: &str, file: &Dockerfile) -> Result<Vec<String>, Error> {
    let name = |line, source| Error::Plan { file: name.to_owned(), line, source };
    let target = plan::target(file, options.target.as_deref()).map_err(Error::Target)?;
    let global = Global::new(
        options.arguments.clone(),
        options.platform.as_ref(),
        &file.arguments,
        file.escape,
        "default",
    )
    .map_err(|(line, error)| name(line, PlanError::Expand(error)))?;
    let plan = plan::plan(file, [target], &global, &contexts::aliases(&options.contexts), &|_, _| Vec::new())
        .map_err(|(line, error)| name(line, error))?;
    // The directories for everything that the steps make.
    let places = ["build", "cache", "images", "layers"].map(|name| options.root.join(name));
    let places = places.iter().map(|place| place.to_string_lossy().into_owned());
    let mut lines = vec![words(["mkdir".to_owned(), "--parents".to_owned()].into_iter().chain(places))];
    let mut stages = vec![Known::default(); file.stages.len()];
    for &at in &plan.stages {
        let stage = &file.stages[at];
        let container = file.name_of(at);
        let base = match &plan.bases[at] {
            Origin::Scratch => "scratch".to_owned(),
            Origin::Image(name, _) | Origin::Files(name) => name.clone(),
            Origin::Stage(index) => {
                stages[at] = stages[*index].on_top();
                file.name_of(*index)
            }
        };
        lines.push(words(["buildah", "from", "--name", &container, &base]));
        for statement in stage.statements.iter().filter(|_| !plan.replaced[at]) {
            lines.push(stages[at].command(&container, statement, (&global, file.escape)));
        }
        for tag in options.tags.iter().filter(|_| at == target) {
            lines.push(words(["buildah", "commit", &container, &tag.to_string()]));
        }
    }
    Ok(lines)
}

//! The schema, and how a request goes through it: measured, then executed, then finished.

use std::sync::Arc;

use async_graphql::{Response, ServerError, Value, Variables, parser::types::ExecutableDocument};
use futures_util::stream::{BoxStream, StreamExt};
use kernel::{
    actor::Actor,
    db::Database,
    idempotency::{Groups, Idempotency},
    keyring::Keyring,
    problem::{self, Problem},
};
use serde::{Serialize, Serializer, ser::SerializeMap};

use crate::{
    answer_size::{AnswerSize, Gathered, Gathering},
    document,
    fault::{INVALID_QUERY, QUERY_TOO_COSTLY, finish, request_error},
    limits::{BATCH_MAX, COST_MAX, DIRECTIVES_MAX, NESTING_MAX},
    loader,
    measure::{Measured, measure},
    mutation::Mutation,
    query::Query,
    reader::Reader,
    shape::Shape,
    subscription::{Source, Subscription},
};

type Engine = async_graphql::Schema<Query, Mutation, Subscription>;

/// What the schema's fields use.
#[derive(Debug, Clone)]
pub struct Services {
    /// The API role's database.
    pub database: Database,
    /// Opens personal data.
    pub keyring: Arc<Keyring>,
    /// Runs mutations, the same one that REST uses.
    pub idempotency: Idempotency,
    /// Places orders in groups, the same that REST's join.
    pub placing: Groups<commerce::order::Place>,
}

/// The schema with its services; clones share it.
#[derive(Clone)]
pub struct Schema {
    engine: Engine,
    shape: Arc<Shape>,
    services: Services,
}

/// One operation that a client asks for.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The document.
    pub query: String,
    /// Which of its operations, where there are several.
    pub operation_name: Option<String>,
    /// The variables: a JSON object.
    pub variables: serde_json::Map<String, serde_json::Value>,
}

/// What an operation came to. Serializes as a GraphQL response.
#[derive(Debug)]
pub struct Answer {
    /// The data; `None` if nothing was executed.
    pub data: Option<Value>,
    /// What went wrong.
    pub errors: Vec<ServerError>,
    /// What it cost, if that could be told.
    pub cost: Option<u64>,
    /// Why nothing was executed, as an HTTP status; `None` if something was.
    pub refused: Option<u16>,
}

/// What may be executed: a GET changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Allowed {
    Queries,
    QueriesAndMutations,
}

fn builder() -> async_graphql::SchemaBuilder<Query, Mutation, Subscription> {
    async_graphql::Schema::build(Query, Mutation, Subscription)
        .extension(AnswerSize)
        .limit_directives(DIRECTIVES_MAX)
        // Measuring has refused what is deeper; the engine's own limit must not be the tighter one.
        .limit_recursive_depth(
            usize::try_from(NESTING_MAX)
                .unwrap_or(usize::MAX)
                .saturating_add(1),
        )
}

/// The schema in the schema definition language, as graphql/schema.graphql keeps it.
pub fn sdl() -> String {
    builder().finish().sdl()
}

/// The schema over its services.
pub fn schema(services: Services) -> Schema {
    let engine = builder()
        .data(services.idempotency.clone())
        .data(services.placing.clone())
        .data(Arc::clone(&services.keyring))
        .finish();
    let shape = Shape::of_sdl(&engine.sdl()).unwrap_or_else(|error| {
        // Nothing is known then, and everything is measured as a list: dearer, but not unbounded. A test keeps this from happening.
        tracing::error!(%error, "the GraphQL schema does not read its own description");
        Shape::default()
    });
    Schema {
        engine,
        shape: Arc::new(shape),
        services,
    }
}

/// A request that has been measured, or the reason why it can't be.
struct Prepared {
    request: Request,
    outcome: Result<(ExecutableDocument, Variables, Measured), ServerError>,
}

impl Schema {
    /// Executes a request on behalf of `actor`.
    pub async fn execute(&self, actor: &Actor, request: Request) -> Answer {
        let mut answers = self
            .execute_all(actor, vec![request], Allowed::QueriesAndMutations)
            .await;
        answers.pop().unwrap_or_else(|| {
            refused(
                request_error(Problem::new(&INVALID_QUERY, "There is no request."), &[]),
                None,
                actor,
            )
        })
    }

    /// Executes requests one after the other. Their costs are added up first: together they are within the limit, or none is executed. Their answers
    /// are counted together too: after one that was too large, none is executed.
    pub(crate) async fn execute_all(
        &self,
        actor: &Actor,
        requests: Vec<Request>,
        allowed: Allowed,
    ) -> Vec<Answer> {
        if requests.len() > BATCH_MAX {
            let detail = format!("A batch may have {BATCH_MAX} operations at most.");
            return vec![refused(
                request_error(Problem::new(&INVALID_QUERY, detail), &[]),
                None,
                actor,
            )];
        }
        let prepared: Vec<Prepared> = requests
            .into_iter()
            .map(|request| self.prepare(request, allowed))
            .collect();
        let costs = prepared
            .iter()
            .filter_map(|prepared| prepared.outcome.as_ref().ok());
        let total = costs.fold(0_u64, |total, (_, _, measured)| {
            total.saturating_add(measured.cost)
        });
        let actor = Arc::new(actor.clone());
        let gathered = Arc::new(Gathered::default());
        let mut answers = Vec::with_capacity(prepared.len());
        for Prepared { request, outcome } in prepared {
            answers.push(match outcome {
                Err(error) => refused(error, None, &actor),
                Ok((_, _, measured)) if total > COST_MAX => {
                    refused(too_costly(total), Some(measured.cost), &actor)
                }
                Ok((document, variables, measured)) => {
                    let Measured {
                        cost, type_names, ..
                    } = measured;
                    if let Some(error) = gathered.refusal() {
                        refused(error, Some(cost), &actor)
                    } else {
                        let gathering = Gathering::new(Arc::clone(&gathered), type_names);
                        let response = self
                            .run(&actor, request, document, variables, gathering)
                            .await;
                        executed(response, cost, &actor)
                    }
                }
            });
        }
        answers
    }

    fn prepare(&self, mut request: Request, allowed: Allowed) -> Prepared {
        let variables = Variables::from_json(serde_json::Value::Object(std::mem::take(
            &mut request.variables,
        )));
        let outcome = self
            .measured(&request, &variables, allowed)
            .map(|(document, measured)| (document, variables, measured));
        Prepared { request, outcome }
    }

    fn measured(
        &self,
        request: &Request,
        variables: &Variables,
        allowed: Allowed,
    ) -> Result<(ExecutableDocument, Measured), ServerError> {
        document::check(&request.query).map_err(|problem| request_error(problem, &[]))?;
        let document = async_graphql::parser::parse_query(&request.query)?;
        let measured = measure(
            &self.shape,
            &document,
            request.operation_name.as_deref(),
            variables,
        )?;
        if measured.mutation && allowed == Allowed::Queries {
            let problem = Problem::new(
                &problem::METHOD_NOT_ALLOWED,
                "A mutation must be sent by POST.",
            );
            return Err(request_error(problem, &[]));
        }
        Ok((document, measured))
    }

    async fn run(
        &self,
        actor: &Arc<Actor>,
        request: Request,
        document: ExecutableDocument,
        variables: Variables,
        gathering: Gathering,
    ) -> Response {
        let gathering = Arc::new(gathering);
        let prepared = self.engine_request(actor, request, document, variables, &gathering);
        gathering.finish(self.engine.execute(prepared).await)
    }

    fn engine_request(
        &self,
        actor: &Arc<Actor>,
        request: Request,
        document: ExecutableDocument,
        variables: Variables,
        gathering: &Arc<Gathering>,
    ) -> async_graphql::Request {
        let Services {
            database, keyring, ..
        } = self.services.clone();
        let reader = Reader::new(Arc::clone(actor), database, keyring);
        let mut prepared = async_graphql::Request::new(request.query)
            .variables(variables)
            .data(loader::loaders(reader.clone()))
            .data(reader)
            .data(Arc::clone(gathering));
        prepared.operation_name = request.operation_name;
        prepared.set_parsed_query(document);
        prepared
    }

    /// Executes a request whose answers are a stream: one for each event of a subscription, and the only one of anything else. Its cost is that of each answer. What
    /// is not executed at all is an answer by itself.
    pub(crate) fn stream(
        &self,
        actor: &Actor,
        request: Request,
        allowed: Allowed,
        source: Source,
    ) -> Result<BoxStream<'static, Answer>, Box<Answer>> {
        let Prepared { request, outcome } = self.prepare(request, allowed);
        let (document, variables, measured) =
            outcome.map_err(|error| Box::new(refused(error, None, actor)))?;
        let Measured {
            cost, type_names, ..
        } = measured;
        if cost > COST_MAX {
            let answer = refused(too_costly(cost), Some(cost), actor);
            return Err(Box::new(answer));
        }
        let actor = Arc::new(actor.clone());
        let gathered = Arc::new(Gathered::default());
        let gathering = Arc::new(Gathering::new(Arc::clone(&gathered), type_names));
        let prepared = self
            .engine_request(&actor, request, document, variables, &gathering)
            .data(source);
        let answers = self.engine.execute_stream(prepared).map(move |response| {
            let response = gathering.finish(response);
            gathered.restart();
            executed(response, cost, &actor)
        });
        Ok(answers.boxed())
    }
}

fn too_costly(total: u64) -> ServerError {
    let detail = format!("The request would cost {total}; {COST_MAX} is the limit.");
    request_error(
        Problem::new(&QUERY_TOO_COSTLY, detail),
        &[("cost", total), ("limit", COST_MAX)],
    )
}

fn refused(error: ServerError, cost: Option<u64>, actor: &Actor) -> Answer {
    let mut errors = vec![error];
    finish(&mut errors, actor.request);
    let refused = Some(status(&errors));
    Answer {
        data: None,
        errors,
        cost,
        refused,
    }
}

fn executed(response: Response, cost: u64, actor: &Actor) -> Answer {
    let mut errors = response.errors;
    // What validation finds has no path: nothing has been executed then.
    let refused = response.data == Value::Null
        && !errors.is_empty()
        && errors.iter().all(|error| error.path.is_empty());
    finish(&mut errors, actor.request);
    let refused = refused.then(|| status(&errors));
    Answer {
        data: refused.is_none().then_some(response.data),
        errors,
        cost: Some(cost),
        refused,
    }
}

fn status(errors: &[ServerError]) -> u16 {
    let status = errors
        .first()
        .and_then(|error| error.extensions.as_ref())
        .and_then(|extensions| extensions.get("status"));
    match status {
        Some(Value::Number(number)) => number
            .as_u64()
            .and_then(|status| status.try_into().ok())
            .unwrap_or(INVALID_QUERY.status),
        _ => INVALID_QUERY.status,
    }
}

impl Serialize for Answer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Extensions {
            cost: Cost,
        }
        #[derive(Serialize)]
        struct Cost {
            requested: u64,
            limit: u64,
        }
        let mut map = serializer.serialize_map(None)?;
        if !self.errors.is_empty() {
            map.serialize_entry("errors", &self.errors)?;
        }
        if let Some(data) = &self.data {
            map.serialize_entry("data", data)?;
        }
        if let Some(requested) = self.cost {
            map.serialize_entry(
                "extensions",
                &Extensions {
                    cost: Cost {
                        requested,
                        limit: COST_MAX,
                    },
                },
            )?;
        }
        map.end()
    }
}

impl std::fmt::Debug for Schema {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Schema").finish_non_exhaustive()
    }
}

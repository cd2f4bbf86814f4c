//! Queries that return no rows because they read a relation of `pg_catalog` that is always empty.
//!
//! Clients ask for indexes, constraints, policies and the like in forms that the engine does not plan. There are none, so that
//! the answer is known without a plan. The rule is cautious: whatever it does not understand is planned.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Function, GroupByExpr, JoinOperator, ObjectName, Query, Select, SelectItem, SetExpr,
    SetOperator, TableFactor, TableWithJoins, Visit, Visitor,
};

use super::PG_CATALOG;

/// Relations without rows, with their columns.
pub(super) const EMPTY: &[(&str, &str)] = &[
    ("pg_aggregate", "aggfnoid aggkind"),
    ("pg_attrdef", "oid adrelid adnum adbin"),
    ("pg_auth_members", "roleid member grantor"),
    ("pg_cast", "oid castsource casttarget castfunc"),
    ("pg_collation", "oid collname collnamespace collowner"),
    (
        "pg_constraint",
        "oid conname connamespace contype condeferrable condeferred convalidated conrelid contypid conindid conparentid confrelid
         confupdtype confdeltype confmatchtype conislocal coninhcount connoinherit conkey confkey conbin",
    ),
    ("pg_conversion", "oid conname connamespace"),
    ("pg_db_role_setting", "setdatabase setrole setconfig"),
    ("pg_default_acl", "oid defaclrole defaclnamespace defaclobjtype defaclacl"),
    ("pg_depend", "classid objid objsubid refclassid refobjid refobjsubid deptype"),
    ("pg_enum", "oid enumtypid enumsortorder enumlabel"),
    ("pg_event_trigger", "oid evtname"),
    ("pg_extension", "oid extname extowner extnamespace extversion"),
    ("pg_foreign_data_wrapper", "oid fdwname"),
    ("pg_foreign_server", "oid srvname srvfdwid"),
    ("pg_foreign_table", "ftrelid ftserverid ftoptions"),
    (
        "pg_index",
        "indexrelid indrelid indnatts indnkeyatts indisunique indnullsnotdistinct indisprimary indisexclusion indimmediate
         indisclustered indisvalid indcheckxmin indisready indislive indisreplident indkey indcollation indclass indoption
         indexprs indpred",
    ),
    ("pg_indexes", "schemaname tablename indexname tablespace indexdef"),
    ("pg_inherits", "inhrelid inhparentid inhparent inhseqno inhdetachpending"),
    ("pg_get_keywords", "word catcode catdesc"),
    ("pg_largeobject_metadata", "oid lomowner lomacl"),
    ("pg_locks", "locktype database relation pid mode granted"),
    ("pg_matviews", "schemaname matviewname matviewowner definition"),
    ("pg_opclass", "oid opcmethod opcname"),
    ("pg_operator", "oid oprname oprnamespace"),
    ("pg_opfamily", "oid opfmethod opfname opfnamespace opfowner"),
    ("pg_amop", "oid amopfamily amoplefttype amoprighttype amopstrategy amoppurpose amopopr amopmethod amopsortfamily"),
    ("pg_amproc", "oid amprocfamily amproclefttype amprocrighttype amprocnum amproc"),
    ("pg_partitioned_table", "partrelid partstrat partnatts"),
    ("pg_policy", "oid polname polrelid polcmd polpermissive polroles polqual polwithcheck"),
    ("pg_prepared_statements", "name statement"),
    ("pg_publication", "oid pubname puballtables"),
    ("pg_publication_namespace", "oid pnpubid pnnspid"),
    ("pg_publication_rel", "oid prpubid prrelid prqual prattrs"),
    ("pg_range", "rngtypid rngsubtypid rngsubtype"),
    ("pg_rewrite", "oid rulename ev_class ev_type"),
    ("pg_seclabel", "objid classid objsubid provider label"),
    ("pg_sequence", "seqrelid seqtypid seqstart seqincrement seqmax seqmin seqcache seqcycle"),
    ("pg_sequences", "schemaname sequencename sequenceowner"),
    ("pg_shdescription", "objid objoid classid classoid description"),
    ("pg_stat_activity", "datid datname pid usename application_name state query"),
    ("pg_stat_user_tables", "relid schemaname relname"),
    ("pg_statistic_ext", "oid stxrelid stxname stxnamespace stxkeys stxkind stxstattarget"),
    ("pg_ts_config", "oid cfgname cfgnamespace cfgowner cfgparser"),
    ("pg_ts_dict", "oid dictname dictnamespace dictowner dicttemplate dictinitoption"),
    ("pg_ts_parser", "oid prsname prsnamespace prsstart prstoken prsend prsheadline prslextype"),
    ("pg_ts_template", "oid tmplname tmplnamespace tmplinit tmpllexize"),
    ("pg_trigger", "oid tgrelid tgname tgfoid tgenabled tgisinternal tgparentid"),
];

/// Aggregates, which return a row without any.
const AGGREGATES: [&str; 9] = ["count", "sum", "min", "max", "avg", "array_agg", "string_agg", "bool_and", "bool_or"];

/// Columns that are always null in relations with rows: no rights have been granted.
const ALWAYS_NULL: [&str; 2] = ["attacl", "relacl"];

/// Returns true if a query certainly returns no rows.
pub(super) fn is_empty(query: &Query) -> bool {
    // A name of WITH could hide a relation.
    query.with.is_none() && is_empty_body(&query.body)
}

fn is_empty_body(body: &SetExpr) -> bool {
    match body {
        SetExpr::Select(select) => {
            (select.from.iter().any(joined) || asks_for_rights(select))
                && (is_grouped(select) || !aggregates(&select.projection))
        }
        SetExpr::Query(query) => is_empty(query),
        SetExpr::SetOperation { op, left, right, .. } => match op {
            SetOperator::Union => is_empty_body(left) && is_empty_body(right),
            SetOperator::Intersect => is_empty_body(left) || is_empty_body(right),
            _ => is_empty_body(left),
        },
        _ => false,
    }
}

/// Returns true if a query reads only the schema, and only rows with a value in a column that is always null.
fn asks_for_rights(select: &Select) -> bool {
    let is_always_null = |condition: &Expr| match condition {
        Expr::IsNotNull(inner) => ALWAYS_NULL.contains(&name_of(inner).as_str()),
        _ => false,
    };
    let reads_the_schema = |tables: &TableWithJoins| {
        is_of_the_schema(&tables.relation) && tables.joins.iter().all(|join| is_of_the_schema(&join.relation))
    };
    select.from.iter().all(reads_the_schema)
        && select.selection.as_ref().is_some_and(|all| demands(all, &is_always_null))
}

/// Returns true if a query reads one value from one relation of the schema by its key, so that it returns at most one row.
pub(super) fn is_lookup(query: &Query) -> bool {
    let SetExpr::Select(select) = query.body.as_ref() else { return false };
    let by_key = |condition: &Expr| match condition {
        Expr::BinaryOp { left, op: BinaryOperator::Eq, right } => {
            [left, right].iter().any(|side| name_of(side) == "oid")
        }
        _ => false,
    };
    let [from] = select.from.as_slice() else { return false };
    from.joins.is_empty()
        && is_of_the_schema(&from.relation)
        && matches!(select.projection.as_slice(), [SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. }])
        && select.selection.as_ref().is_some_and(|all| demands(all, &by_key))
        && !is_grouped(select)
        && !aggregates(&select.projection)
}

/// Returns true if a condition can hold only if `part` accepts one of the terms that it joins by AND.
fn demands(condition: &Expr, part: &dyn Fn(&Expr) -> bool) -> bool {
    match condition {
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => demands(left, part) || demands(right, part),
        Expr::Nested(inner) => demands(inner, part),
        _ => part(condition),
    }
}

fn is_of_the_schema(factor: &TableFactor) -> bool {
    let TableFactor::Table { name, args: None, .. } = factor else { return false };
    let parts: Vec<&str> = name.0.iter().filter_map(|part| part.as_ident().map(|ident| ident.value.as_str())).collect();
    match parts.as_slice() {
        [name] => name.starts_with("pg_"),
        [schema, _] => *schema == PG_CATALOG,
        _ => false,
    }
}

/// Returns true if a query reads results of functions alone.
pub(super) fn reads_functions(query: &Query) -> bool {
    let SetExpr::Select(select) = query.body.as_ref() else { return false };
    let is_function = |factor: &TableFactor| {
        matches!(
            factor,
            TableFactor::Table { args: Some(_), .. } | TableFactor::UNNEST { .. } | TableFactor::Function { .. }
        )
    };
    !select.from.is_empty() && select.from.iter().all(|tables| tables.joins.is_empty() && is_function(&tables.relation))
}

fn joined(tables: &TableWithJoins) -> bool {
    tables.joins.iter().fold(relation(&tables.relation), |so_far, join| {
        let other = || relation(&join.relation);
        match &join.join_operator {
            JoinOperator::Join(_) | JoinOperator::Inner(_) | JoinOperator::CrossJoin(_) => so_far || other(),
            JoinOperator::Left(_) | JoinOperator::LeftOuter(_) => so_far,
            JoinOperator::Right(_) | JoinOperator::RightOuter(_) => other(),
            _ => false,
        }
    })
}

fn relation(factor: &TableFactor) -> bool {
    match factor {
        TableFactor::Table { name, args: None, .. } => is_empty_relation(name),
        TableFactor::Derived { subquery, .. } => is_empty(subquery),
        TableFactor::NestedJoin { table_with_joins, .. } => joined(table_with_joins),
        _ => false,
    }
}

fn is_empty_relation(name: &ObjectName) -> bool {
    let parts: Option<Vec<&str>> =
        name.0.iter().map(|part| part.as_ident().map(|ident| ident.value.as_str())).collect();
    let known = |name: &str| EMPTY.iter().any(|(known, _)| *known == name);
    match parts.as_deref() {
        Some([name]) => known(name),
        Some([schema, name]) => *schema == PG_CATALOG && known(name),
        _ => false,
    }
}

fn is_grouped(select: &Select) -> bool {
    match &select.group_by {
        GroupByExpr::All(_) => true,
        GroupByExpr::Expressions(keys, modifiers) => !keys.is_empty() && modifiers.is_empty(),
    }
}

/// Returns true if a list of results calls an aggregate, except in its subqueries.
fn aggregates(items: &[SelectItem]) -> bool {
    struct Calls {
        depth: usize,
    }

    impl Visitor for Calls {
        type Break = ();

        fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
            self.depth += 1;
            ControlFlow::Continue(())
        }

        fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
            self.depth -= 1;
            ControlFlow::Continue(())
        }

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            match expr {
                Expr::Function(call) if self.depth == 0 && is_aggregate(call) => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        }
    }

    items.iter().any(|item| item.visit(&mut Calls { depth: 0 }).is_break())
}

fn is_aggregate(call: &Function) -> bool {
    let name = call.name.0.last().and_then(|part| part.as_ident()).map(|ident| ident.value.to_lowercase());
    name.is_some_and(|name| AGGREGATES.contains(&name.as_str()))
}

/// Returns the names of the columns of a query without rows; `None` if only a plan would tell.
pub(super) fn columns(query: &Query) -> Option<Vec<String>> {
    let mut body = query.body.as_ref();
    let select = loop {
        match body {
            SetExpr::Select(select) => break select,
            SetExpr::Query(query) => body = query.body.as_ref(),
            SetExpr::SetOperation { left, .. } => body = left.as_ref(),
            _ => return None,
        }
    };
    let mut names: Vec<String> = Vec::new();
    for item in &select.projection {
        let name = match item {
            SelectItem::UnnamedExpr(expr) => name_of(expr),
            SelectItem::ExprWithAlias { alias, .. } => alias.value.clone(),
            _ => return None,
        };
        // The engine needs each name once.
        let taken = names.iter().filter(|known| **known == name || known.starts_with(&format!("{name} "))).count();
        names.push(if taken == 0 { name } else { format!("{name} {}", taken + 1) });
    }
    Some(names)
}

fn name_of(expr: &Expr) -> String {
    match expr {
        Expr::Identifier(ident) => ident.value.clone(),
        Expr::CompoundIdentifier(idents) => idents.last().map(|ident| ident.value.clone()).unwrap_or_default(),
        Expr::Cast { expr, .. } | Expr::Nested(expr) => name_of(expr),
        Expr::Function(call) => {
            let last = call.name.0.last().and_then(|part| part.as_ident());
            last.map_or_else(|| "?column?".to_owned(), |ident| ident.value.clone())
        }
        _ => "?column?".to_owned(),
    }
}

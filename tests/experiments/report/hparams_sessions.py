"""Reads TensorBoard's HParams as TensorBoard does."""

from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups


def sessions(folder):
    """The sessions that TensorBoard's own HParams backend reads, by run."""
    events = EventMultiplexer()
    events.AddRunsFromDirectory(str(folder))
    events.Reload()
    provider = MultiplexerDataProvider(events, str(folder))
    context, request = backend_context.Context(TBContext(data_provider=provider)), RequestContext()
    metadata = context.hparams_metadata(request, "")
    listed = context.hparams_from_data_provider(request, "", limit=100)
    experiment = context.experiment_from_metadata(request, "", True, metadata, listed)
    asked = api_pb2.ListSessionGroupsRequest(
        start_index=0, slice_size=100, allowed_statuses=[api_pb2.STATUS_UNKNOWN]
    )
    for info in experiment.metric_infos:
        asked.col_params.add().metric.CopyFrom(info.name)
    found = list_session_groups.Handler(request, context, "", asked).run()
    return {
        group.name: (
            {
                name: getattr(value, value.WhichOneof("kind"))
                for name, value in group.hparams.items()
            },
            {value.name.tag: value.value for value in group.metric_values},
        )
        for group in found.session_groups
    }

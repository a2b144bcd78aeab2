"""The experiments that use the library: data, models, runs, reports, studies."""

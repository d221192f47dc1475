"""Compare the methods on one volume."""

from voxmill.evaluation.compare_methods import compare_methods

if __name__ == "__main__":
    compare_methods(
        evaluation_paths=snakemake.input.evaluations,
        methods=snakemake.params.methods,
        output_path=snakemake.output.table,
        code=snakemake.params.code,
        log_path=snakemake.log[0],
    )

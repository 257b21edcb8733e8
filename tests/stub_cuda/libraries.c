// cuBLAS, cuBLASLt and cuRAND.
#include "stub.h"

int cublasCreate_v2(void** handle) { return make(handle); }
int cublasDestroy_v2(void* handle) { return drop(handle); }
int cublasSetStream_v2(void* handle, void* stream) { return OK; }
// candle's own products, which an unoptimized build links. Ours are cuBLASLt's.
int cublasGemmStridedBatchedEx(void) { return invalid("a matrix product of candle's"), INVALID; }
int cublasDgemmStridedBatched(void) { return invalid("a matrix product of candle's"), INVALID; }

int cublasLtCreate(void** handle) { return make(handle); }
int cublasLtDestroy(void* handle) { return drop(handle); }

// A matrix layout.
typedef struct {
    int type;
    uint64_t rows, columns;
    int64_t stride;
    int32_t batch;
    int64_t batch_stride;
} Layout;

// A matrix product descriptor.
typedef struct {
    int32_t transposed[2];
} Product;

int cublasLtMatmulDescCreate(Product** product, int compute, int scale) {
    return *product = calloc(1, sizeof **product), OK;
}
int cublasLtMatmulDescDestroy(Product* product) { return drop(product); }
int cublasLtMatmulDescSetAttribute(Product* product, int attribute, const void* value, size_t size) {
    enum { TRANSPOSED_A = 3, TRANSPOSED_B = 4 };
    if (attribute == TRANSPOSED_A) memcpy(&product->transposed[0], value, size);
    if (attribute == TRANSPOSED_B) memcpy(&product->transposed[1], value, size);
    return OK;
}

int cublasLtMatrixLayoutCreate(Layout** layout, int type, uint64_t rows, uint64_t columns, int64_t stride) {
    *layout = malloc(sizeof **layout);
    **layout = (Layout){type, rows, columns, stride, 1, 0};
    if (stride < (int64_t)rows) invalid("overlapping matrix columns");
    return OK;
}
int cublasLtMatrixLayoutDestroy(Layout* layout) { return drop(layout); }
int cublasLtMatrixLayoutSetAttribute(Layout* layout, int attribute, const void* value, size_t size) {
    enum { BATCH = 5, BATCH_STRIDE = 6 };
    if (attribute == BATCH) memcpy(&layout->batch, value, size);
    if (attribute == BATCH_STRIDE) memcpy(&layout->batch_stride, value, size);
    return OK;
}

int cublasLtMatmulPreferenceCreate(void** preference) { return make(preference); }
int cublasLtMatmulPreferenceDestroy(void* preference) { return drop(preference); }
int cublasLtMatmulPreferenceSetAttribute(void* preference, int attribute, const void* value, size_t size) { return OK; }

// Checks that the shapes, types and batches of a product match.
static void check(const Product* product, const Layout* a, const Layout* b, const Layout* c, const Layout* d) {
    const int ta = product->transposed[0], tb = product->transposed[1];
    const uint64_t m = ta ? a->columns : a->rows, depth = ta ? a->rows : a->columns;
    const uint64_t depth_of_b = tb ? b->columns : b->rows, n = tb ? b->rows : b->columns;
    if (depth != depth_of_b || d->rows != m || d->columns != n) invalid("mismatched shapes of a matrix product");
    if (c->rows != d->rows || c->columns != d->columns || c->type != d->type) invalid("mismatched shapes or types of C and D");
    if (a->batch != d->batch || b->batch != d->batch) invalid("mismatched batch sizes");
    if (a->type != b->type) invalid("mismatched types of A and B");
}

int cublasLtMatmulAlgoGetHeuristic(void* handle, const Product* product, const Layout* a, const Layout* b,
                                   const Layout* c, const Layout* d, void* preference, int wanted, void* results,
                                   int* found) {
    enum { RESULT_BYTES = 96 };
    check(product, a, b, c, d);
    memset(results, 0, RESULT_BYTES);
    return *found = 1, OK;
}

// The bytes that a matrix spans.
static size_t extent(const Layout* layout) {
    enum { BF16 = 14 };
    const int64_t last = (layout->batch - 1) * layout->batch_stride + ((int64_t)layout->columns - 1) * layout->stride;
    return (size_t)(last + (int64_t)layout->rows) * (layout->type == BF16 ? 2 : 4);
}

int cublasLtMatmul(void* handle, const Product* product, const void* alpha, const void* a, const Layout* of_a,
                   const void* b, const Layout* of_b, const void* beta, const void* c, const Layout* of_c, void* d,
                   const Layout* of_d, const void* algorithm, void* workspace, size_t bytes, void* stream) {
    check(product, of_a, of_b, of_c, of_d);
    check_allocated(a, extent(of_a)), check_allocated(b, extent(of_b));
    check_allocated(c, extent(of_c)), check_allocated(d, extent(of_d)), check_allocated(workspace, bytes);
    return OK;
}

int curandCreateGenerator(void** generator, int type) { return make(generator); }
int curandDestroyGenerator(void* generator) { return drop(generator); }
int curandSetPseudoRandomGeneratorSeed(void* generator, uint64_t seed) { return OK; }
int curandSetStream(void* generator, void* stream) { return OK; }

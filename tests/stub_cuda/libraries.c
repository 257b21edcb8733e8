// cuBLAS, cuBLASLt and cuRAND.
#include "stub.h"

int cublasCreate_v2(void** handle) { return make(handle); }
int cublasDestroy_v2(void* handle) { return drop(handle); }
int cublasSetStream_v2(void* handle, void* stream) { return OK; }
// candle's own products, which an unoptimized build links. Ours are cuBLASLt's.
int cublasGemmStridedBatchedEx(void) { return invalid("a matrix product of candle's"), INVALID; }
int cublasDgemmStridedBatched(void) { return invalid("a matrix product of candle's"), INVALID; }

// Version 13.0.2 of each library.
static int property(int type, int* value) { return *value = type == 0 ? 13 : type == 1 ? 0 : 2, OK; }
int cublasGetProperty(int type, int* value) { return property(type, value); }
int cublasLtGetProperty(int type, int* value) { return property(type, value); }
int curandGetProperty(int type, int* value) { return property(type, value); }

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

// What an algorithm may assume and do: the preference, and the head of an algorithm chosen under it.
typedef struct {
    uint32_t reductions;
    uint32_t alignments[4]; // of A, B, C and D, in bytes
} Preference;

int cublasLtMatmulPreferenceCreate(Preference** preference) {
    enum { ALL_REDUCTIONS = 7 };
    *preference = malloc(sizeof **preference);
    **preference = (Preference){ALL_REDUCTIONS, {256, 256, 256, 256}};
    return OK;
}
int cublasLtMatmulPreferenceDestroy(Preference* preference) { return drop(preference); }
int cublasLtMatmulPreferenceSetAttribute(Preference* preference, int attribute, const void* value, size_t size) {
    enum { REDUCTIONS = 3, ALIGNMENT_OF_A = 5, ALIGNMENT_OF_D = 8 };
    if (attribute == REDUCTIONS) memcpy(&preference->reductions, value, size);
    if (attribute >= ALIGNMENT_OF_A && attribute <= ALIGNMENT_OF_D)
        memcpy(&preference->alignments[attribute - ALIGNMENT_OF_A], value, size);
    return OK;
}

enum { BF16 = 14 };

static size_t element(const Layout* layout) { return layout->type == BF16 ? 2 : 4; }

// Whether bf16 columns start at multiples of 16 bytes, which this library demands: it has no algorithm for others.
static int is_aligned(const Layout* layout, uint32_t alignment) {
    return layout->type != BF16 || (alignment % 16 == 0 && (layout->columns == 1 || layout->stride % 8 == 0));
}

// Checks that an address, and those of the batch, have the declared alignment.
static void check_alignment(const void* at, const Layout* layout, uint32_t alignment) {
    const size_t stride = layout->batch > 1 ? (size_t)layout->batch_stride * element(layout) : 0;
    if (((size_t)at | stride) % alignment) invalid("a matrix is less aligned than its product's preference says");
}

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
                                   const Layout* c, const Layout* d, const Preference* preference, int wanted,
                                   void* results, int* found) {
    enum { RESULT_BYTES = 96, COMPUTE_TYPE = 2, NOT_SUPPORTED = 15 };
    check(product, a, b, c, d);
    if (preference->reductions & ~COMPUTE_TYPE) invalid("parts of a product may be added in the output's type");
    const Layout* const layouts[] = {a, b, c, d};
    for (int i = 0; i < 4; i++)
        if (!is_aligned(layouts[i], preference->alignments[i])) return *found = 0, NOT_SUPPORTED;
    memset(results, 0, RESULT_BYTES);
    memcpy(results, preference, sizeof *preference);
    return *found = 1, OK;
}

// The bytes that a matrix spans.
static size_t extent(const Layout* layout) {
    const int64_t last = (layout->batch - 1) * layout->batch_stride + ((int64_t)layout->columns - 1) * layout->stride;
    return (size_t)(last + (int64_t)layout->rows) * element(layout);
}

int cublasLtMatmul(void* handle, const Product* product, const void* alpha, const void* a, const Layout* of_a,
                   const void* b, const Layout* of_b, const void* beta, const void* c, const Layout* of_c, void* d,
                   const Layout* of_d, const Preference* algorithm, void* workspace, size_t bytes, void* stream) {
    check(product, of_a, of_b, of_c, of_d);
    check_alignment(a, of_a, algorithm->alignments[0]), check_alignment(b, of_b, algorithm->alignments[1]);
    check_alignment(c, of_c, algorithm->alignments[2]), check_alignment(d, of_d, algorithm->alignments[3]);
    check_allocated(a, extent(of_a)), check_allocated(b, extent(of_b));
    check_allocated(c, extent(of_c)), check_allocated(d, extent(of_d)), check_allocated(workspace, bytes);
    return OK;
}

int curandCreateGenerator(void** generator, int type) { return make(generator); }
int curandDestroyGenerator(void* generator) { return drop(generator); }
int curandSetPseudoRandomGeneratorSeed(void* generator, uint64_t seed) { return OK; }
int curandSetStream(void* generator, void* stream) { return OK; }
